/// Laws on single inputs, by running them: what z3 says of the logic must be so of the code, or the translation is wrong.
module Lightway.Specs.Proofs.Running

open System
open System.Reflection
open FSharp.Linq.RuntimeHelpers
open FSharp.Quotations
open FSharp.Quotations.ExprShape
open FSharp.Quotations.Patterns
open Lightway.Specs.Proofs.Law
open Lightway.Specs.Proofs.Smt

/// The definition applied to the arguments of a call of it.
let rec private applied (definition: Expr) (arguments: Expr list) : Expr =
    match definition, arguments with
    | Lambda(variable, body), _ :: _ :: _ when Reflection.FSharpType.IsTuple variable.Type ->
        Expr.Let(variable, Expr.NewTuple arguments, body)
    | Lambda(variable, body), argument :: rest -> Expr.Let(variable, argument, applied body rest)
    | _ -> definition

/// The expression with every reflected function in its place, and the changed ones by their changed definitions.
let rec private expanded (changes: Changes) (expression: Expr) : Expr =
    let definitionOf (method: MethodInfo) =
        changes.TryFind(keyOf method) |> Option.orElseWith (fun () -> Expr.TryGetReflectedDefinition method)

    match expression with
    | Call(None, method, arguments) when (definitionOf method).IsSome ->
        applied (expanded changes (definitionOf method).Value) (List.map (expanded changes) arguments)
    | ShapeVar _ -> expression
    | ShapeLambda(variable, body) -> Expr.Lambda(variable, expanded changes body)
    | ShapeCombination(shape, parts) -> RebuildShapeCombination(shape, List.map (expanded changes) parts)

let private literal (kind: Type) (value: uint64) : obj =
    if kind = typeof<bool> then box (value = 1UL)
    elif kind = typeof<byte> then box (byte value)
    elif kind = typeof<uint16> then box (uint16 value)
    elif kind = typeof<int16> then box (int16 value)
    elif kind = typeof<uint32> then box (uint32 value)
    elif kind = typeof<int> then box (int value)
    elif kind = typeof<uint64> then box value
    elif kind = typeof<int64> then box (int64 value)
    else raise (NotTranslated $"a value of type {kind.Name}")

/// The statement as a function of its variables' values, in an array.
let private compiled (statement: Expr) : obj[] -> bool =
    let values = Var("values", typeof<obj[]>)

    let rec bound (index: int) (statement: Expr) =
        match statement with
        | Lambda(variable, body) ->
            let item = <@@ (%%Expr.Var values: obj[])[index] @@>
            Expr.Let(variable, Expr.Coerce(item, variable.Type), bound (index + 1) body)
        | body -> body

    LeafExpressionConverter.EvaluateQuotation(Expr.Lambda(values, bound 0 statement)) :?> (obj[] -> bool)

let private kindsOf (statement: Expr) : Type list =
    let rec kinds found =
        function
        | Lambda(variable, body) -> kinds (variable.Type :: found) body
        | _ -> List.rev found

    kinds [] statement

/// Whether the statement holds for these inputs, with the changed definitions in force; a division by zero is a no.
let holds (changes: Changes) (statement: Expr) (inputs: Input list) : bool =
    let values =
        [| for input in inputs do
               literal input.Kind input.Value |]

    try
        compiled (expanded changes statement) values
    with :? DivideByZeroException ->
        false

/// Values at which arithmetic tends to err, of 64 bits; narrower types take the lowest ones.
let private edges =
    [| 0UL
       1UL
       0x7FUL
       0x80UL
       0xFFUL
       0x7FFFUL
       0x8000UL
       0xFFFEUL
       0xFFFFUL
       0x1_0000UL
       0x7FFF_FFFFUL
       0x8000_0000UL
       0xFFFF_FFFFUL
       0x1_0000_0000UL
       0x7FFF_FFFF_FFFF_FFFFUL
       0x8000_0000_0000_0000UL
       0xFFFF_FFFF_FFFF_0000UL
       UInt64.MaxValue |]

/// Looks for inputs for which the code itself breaks a law: `count` of them, half of their values at the edges.
let sample (seed: int) (count: int) (statement: Expr) : Input list option =
    let random = Random seed
    let run = compiled statement
    let kinds = kindsOf statement

    let draw (kind: Type) =
        let bits =
            match random.Next 4 with
            | 0
            | 1 -> edges[random.Next edges.Length]
            | 2 -> uint64 (random.Next 100)
            | _ -> uint64 (random.NextInt64(Int64.MinValue, Int64.MaxValue))

        { Variable = ""
          Kind = kind
          Value = if kind = typeof<bool> then bits &&& 1UL else bits }

    Seq.init count (fun _ -> List.map draw kinds)
    |> Seq.tryFind (fun inputs ->
        let values =
            [| for input in inputs do
                   literal input.Kind input.Value |]

        not (run values))

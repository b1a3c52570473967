/// A statement about all inputs, and what becomes of it.
module Lightway.Specs.Proofs.Law

open System
open FSharp.Quotations
open FSharp.Quotations.Patterns
open Lightway.Specs.Proofs.Smt

/// A definition that is wrong in one point, in the place of a function's own.
type Mutant =
    {
        /// What is wrong.
        What: string
        /// The function, as `<@@ Checksum.fold @@>`.
        Function: Expr
        Wrong: Expr
    }

type Law =
    {
        Name: string
        /// RFC and section.
        Source: string
        /// A function from its variables to bool: true for every value of each.
        Statement: Expr
        Theory: Theory
        /// The function that the law says everything about that others use: its arguments are the law's variables.
        About: Expr option
        /// Functions of which the proof uses nothing.
        Opaque: Expr list
        /// Laws that stand before this one, by name. The proof uses nothing but them of the functions that they are about.
        Using: string list
        /// Must make the statement false for some input.
        Mutant: Mutant
    }

/// The value of a variable, as the lowest bits of a number.
type Input =
    { Variable: string
      Kind: Type
      Value: uint64 }

    /// With its bytes in network order, as `sum = ff fe`.
    override input.ToString() =
        if input.Kind = typeof<bool> then
            $"{input.Variable} = {input.Value = 1UL}"
        else
            let digits = 2 * Runtime.InteropServices.Marshal.SizeOf input.Kind
            let text = (input.Value.ToString "x16").Substring(16 - digits)
            let spaced = text |> Seq.chunkBySize 2 |> Seq.map String |> String.concat " "
            $"{input.Variable} = {spaced}"

/// The bytes of a counterexample.
let shown (inputs: Input list) : string =
    inputs |> List.map string |> String.concat ", "

type Verdict =
    | Proved
    /// The first counterexample: all variables in their order.
    | Refuted of Input list
    | Undecided of string

/// Variables of the statement, and what it says of them. A tuple of variables counts as several.
let private opened (script: Script) (statement: Expr) : (string * Type) list * Term =
    let variables = Collections.Generic.List<string * Type>()

    let declare (name: string) (kind: Type) =
        let unique = $"x{variables.Count}_{name.Replace('\'', '_')}"
        variables.Add((unique, kind))
        script.Declare(unique, kind)

    let rec apply (names: Expr) (term: Term) =
        match names, term with
        | Lambda(variable, body), Function f -> apply body (f (declare variable.Name variable.Type))
        | _ -> term

    let said = apply statement (script.Translate(Map.empty, statement))
    List.ofSeq variables, said

let private input (name: string, kind: Type) (value: uint64) : Input =
    { Variable = name.Substring(name.IndexOf '_' + 1)
      Kind = kind
      Value = value }

let private decideWith (script: Script) (command: string) (statement: Expr) : Verdict * float =
    let variables, said = opened script statement

    match said with
    | Term(text, kind) when kind = typeof<bool> ->
        let lines = Seq.append script.Lines [ $"(assert (not {text}))" ]

        match Solver.check lines command (List.map fst variables) with
        | Solver.Unsatisfiable, seconds -> Proved, seconds
        | Solver.Satisfiable values, seconds -> Refuted(List.map2 input variables values), seconds
        | Solver.Unknown(why, file), seconds -> Undecided $"{why}; see {file}", seconds
    | _ -> raise (NotTranslated "a statement that is not a bool")

let private functionOf (quoted: Expr) : string =
    let rec find =
        function
        | Lambda(_, body)
        | Let(_, _, body) -> find body
        | Call(None, method, _) -> keyOf method
        | other -> raise (NotTranslated $"{other} as a function's name")

    find quoted

/// How z3 is to go about it: with integers, its own choice of tactics first tries what does not end.
let private commandOf (theory: Theory) : string =
    match theory with
    | Bits -> "(check-sat)"
    | Integers -> "(check-sat-using smt)"

/// Decides a statement, with the changed definitions in force. Also z3's processor time, in seconds.
let decide (theory: Theory) (changes: Changes) (statement: Expr) : Verdict * float =
    decideWith (Script(theory, changes, Map.empty)) (commandOf theory) statement

/// The functions of the product that a law speaks of, directly or by others, as `Checksum.fold`.
let functionsOf (law: Law) : string list =
    let script = Script(law.Theory, Map.empty, Map.empty)
    opened script law.Statement |> ignore

    [ for key in script.Used do
          if not (key.Contains "Specs") then
              let parts = key.Split '.'
              let holder = parts[parts.Length - 2]
              // A module that has a type's name is compiled as NameModule.
              let holder =
                  if holder.EndsWith "Module" then
                      holder.Substring(0, holder.Length - 6)
                  else
                      holder

              $"{holder}.{Array.last parts}" ]

/// Proves the law from those that stand before it in `all`.
let prove (all: Law list) (law: Law) : Verdict * float =
    let before = all |> List.takeWhile (fun other -> other.Name <> law.Name)

    let facts =
        [ for name in law.Using do
              match before |> List.tryFind (fun other -> other.Name = name) with
              | Some { About = Some subject
                       Statement = statement } -> functionOf subject, statement
              | Some _ -> invalidOp $"\"{law.Name}\" uses \"{name}\", which is not about a function"
              | None -> invalidOp $"\"{law.Name}\" uses \"{name}\", which does not stand before it" ]

    let opaque =
        [ for name in law.Opaque do
              functionOf name, []
          for name, statements in List.groupBy fst facts do
              name, List.map snd statements ]

    decideWith (Script(law.Theory, Map.empty, Map opaque)) (commandOf law.Theory) law.Statement

/// The law's mutant, in force.
let changesOf (law: Law) : Changes =
    Map [ functionOf law.Mutant.Function, law.Mutant.Wrong ]

/// Looks for a counterexample to the law with its mutant in force. Nothing is taken for granted. Bits come first, as they are better
/// at finding one; if they give up, the law's own theory decides.
let refute (law: Law) : Verdict * float =
    let changes = changesOf law

    let inBits =
        try
            decide Bits changes law.Statement
        with NotTranslated what when law.Theory = Integers ->
            Undecided what, 0.0

    match inBits with
    | Undecided _, seconds when law.Theory = Integers ->
        let verdict, more = decide Integers changes law.Statement
        verdict, seconds + more
    | verdict -> verdict

/// Logical implication, for statements with a precondition.
[<ReflectedDefinition>]
let (==>) (condition: bool) (conclusion: bool) : bool = not condition || conclusion

/// What most laws have in common; the rest is filled in.
let plain: Law =
    { Name = ""
      Source = ""
      Statement = <@@ false @@>
      Theory = Bits
      About = None
      Opaque = []
      Using = []
      Mutant =
        { What = ""
          Function = <@@ false @@>
          Wrong = <@@ false @@> } }

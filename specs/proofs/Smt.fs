/// Translates F# quotations of integer arithmetic into SMT-LIB 2. The functions of the product are read from their own compiled
/// definitions ([<ReflectedDefinition>]): what is proved is the code that runs, not a copy of it.
module Lightway.Specs.Proofs.Smt

open System
open System.Collections.Generic
open System.Reflection
open FSharp.Quotations
open FSharp.Quotations.Patterns
open Lightway.Specs.Proofs
open Lightway.Specs.Proofs.Integers

/// Raised for a construct that has no translation: it must be named, never guessed.
exception NotTranslated of what: string

/// A value of the logic: a term with its F# type, or a tuple of values.
type Term =
    | Term of text: string * kind: Type
    | Tuple of Term list
    /// A function that waits for its argument.
    | Function of (Term -> Term)

/// Definitions that take the place of functions, to see that a proof notices.
type Changes = Map<string, Expr>

/// The theory that a law is decided in. Both say the same of numbers that wrap around.
type Theory =
    /// Bit vectors: every operator is known, and sums of many terms are hard.
    | Bits
    /// Integers, with quotients and remainders where a number wraps around: sums are easy, masks must be of the form 2^n - 1,
    /// and `bigint` is a number that does not wrap around.
    | Integers

let private unsignedWidths =
    dict [ typeof<byte>, 8; typeof<uint16>, 16; typeof<uint32>, 32; typeof<uint64>, 64 ]

let private signedWidths =
    dict [ typeof<sbyte>, 8; typeof<int16>, 16; typeof<int>, 32; typeof<int64>, 64 ]

let private widthOf (kind: Type) : int =
    match unsignedWidths.TryGetValue kind, signedWidths.TryGetValue kind with
    | (true, width), _
    | _, (true, width) -> width
    | _ -> raise (NotTranslated $"a number of type {kind.Name}")

let private isSigned (kind: Type) = signedWidths.ContainsKey kind

/// The sort of a type.
let private sortOf (theory: Theory) (kind: Type) : string =
    if kind = typeof<bool> then "Bool"
    elif theory = Integers then "Int"
    else $"(_ BitVec {widthOf kind})"

/// 2^n.
let private power (n: int) : bigint = bigint.Pow(2I, n)

/// What a number of this type can be; `bigint` can be anything.
let private rangeOf (kind: Type) : Range =
    if kind = typeof<bigint> || kind = typeof<bool> then
        None
    elif isSigned kind then
        Some(-power(widthOf kind - 1), power (widthOf kind - 1) - 1I)
    else
        Some(0I, power (widthOf kind) - 1I)

let private bits (value: obj) (kind: Type) : Term =
    match value with
    | :? bool as value -> Term((if value then "true" else "false"), kind)
    | _ ->
        let width = widthOf kind

        let bits =
            match value with
            | :? sbyte as value -> uint64 (byte value)
            | :? int16 as value -> uint64 (uint16 value)
            | :? int as value -> uint64 (uint32 value)
            | :? int64 as value -> uint64 value
            | _ -> Convert.ToUInt64 value

        Term($"(_ bv{bits} {width})", kind)

/// A conversion between bit vectors: what the F# functions `uint16`, `int` and the like do, unchecked.
let private convert (target: Type) (term: Term) : Term =
    match term with
    | Term(text, source) ->
        let from, into = widthOf source, widthOf target

        let converted =
            if into = from then
                text
            elif into < from then
                $"((_ extract {into - 1} 0) {text})"
            elif isSigned source then
                $"((_ sign_extend {into - from}) {text})"
            else
                $"((_ zero_extend {into - from}) {text})"

        Term(converted, target)
    | _ -> raise (NotTranslated "a conversion of something that is not a number")

let private conversions =
    dict
        [ "ToByte", typeof<byte>
          "ToSByte", typeof<sbyte>
          "ToUInt16", typeof<uint16>
          "ToInt16", typeof<int16>
          "ToUInt32", typeof<uint32>
          "ToInt32", typeof<int>
          "ToInt", typeof<int>
          "ToUInt64", typeof<uint64>
          "ToInt64", typeof<int64> ]

/// Operators with two operands of one type, for unsigned and for signed numbers; the result has that type.
let private arithmetic =
    dict
        [ "op_Addition", ("bvadd", "bvadd")
          "op_Subtraction", ("bvsub", "bvsub")
          "op_Multiply", ("bvmul", "bvmul")
          "op_Division", ("bvudiv", "bvsdiv")
          "op_Modulus", ("bvurem", "bvsrem")
          "op_BitwiseAnd", ("bvand", "bvand")
          "op_BitwiseOr", ("bvor", "bvor")
          "op_ExclusiveOr", ("bvxor", "bvxor") ]

let private comparisons =
    dict
        [ "op_LessThan", ("bvult", "bvslt")
          "op_LessThanOrEqual", ("bvule", "bvsle")
          "op_GreaterThan", ("bvugt", "bvsgt")
          "op_GreaterThanOrEqual", ("bvuge", "bvsge") ]

let private pick (kind: Type) (unsigned, signed) =
    if isSigned kind then signed else unsigned

/// The bits of a mask 2^n - 1, or -1.
let private maskOf (text: string) : int =
    match bigint.TryParse text with
    | true, mask -> Seq.tryFind (fun n -> power n - 1I = mask) [ 0..64 ] |> Option.defaultValue -1
    | _ -> -1

/// F# takes a shift count modulo the width.
let private shift (name: string) (left: Term) (count: Term) : Term =
    match left, count with
    | Term(text, kind), Term(count, countKind) when countKind = typeof<int> ->
        let width = widthOf kind
        let masked = $"(bvand {count} (_ bv{width - 1} 32))"

        let count =
            match convert kind (Term(masked, typeof<uint32>)) with
            | Term(count, _) -> count
            | _ -> raise (NotTranslated name)

        let operation =
            match name with
            | "op_LeftShift" -> "bvshl"
            | _ when isSigned kind -> "bvashr"
            | _ -> "bvlshr"

        Term($"({operation} {text} {count})", kind)
    | _ -> raise (NotTranslated $"{name} of these operands")

/// The key of a function in `Changes`.
let keyOf (method: MethodBase) : string =
    match method.DeclaringType with
    | null -> method.Name
    | kind -> $"{kind.FullName}.{method.Name}"

/// An operator or a conversion of F# itself.
let private isOperator (method: MethodInfo) : bool =
    match method.DeclaringType with
    | null -> false
    | holder -> holder.FullName = "Microsoft.FSharp.Core.Operators"

/// Collects the script of one law. `opaque` are the keys of functions that are not expanded; of them nothing is known but what
/// their facts say, functions from the same arguments to bool.
type Script(theory: Theory, changes: Changes, opaque: Map<string, Expr list>) =
    let declared = HashSet<string>()
    let lines = List<string>()
    let used = HashSet<string>()
    let ranges = Dictionary<string, Range>()
    let divisions = Divisions lines.Add
    let names = Dictionary<string, string>()

    let number (text: string) (kind: Type) : Number =
        match ranges.TryGetValue text with
        | true, range -> { Text = text; Range = range }
        | _ -> { Text = text; Range = rangeOf kind }

    /// The number that an F# value of this type wraps around to.
    let wrap (kind: Type) (value: Number) : Term =
        let value =
            if kind = typeof<bigint> then
                value
            else
                divisions.Wrap(value, widthOf kind, isSigned kind)

        ranges[value.Text] <- value.Range
        Term(value.Text, kind)

    let literal (value: obj) (kind: Type) : Term =
        match value with
        | :? bool -> bits value kind
        | _ when theory = Integers -> wrap kind (constant (bigint (Convert.ToDecimal value)))
        | _ -> bits value kind

    let calculate (name: string) (kind: Type) (left: string) (right: string) : Term =
        let left, right = number left kind, number right kind

        let value =
            match name, right.Range with
            | "op_Addition", _ -> add left right
            | "op_Subtraction", _ -> subtract left right
            | "op_Multiply", _ -> multiply left right
            | "op_Division", Some(low, high) when low = high && low.Sign > 0 && not (isSigned kind) ->
                fst (divisions.By(left, low))
            | "op_Modulus", Some(low, high) when low = high && low.Sign > 0 && not (isSigned kind) ->
                snd (divisions.By(left, low))
            | "op_Division", _ -> fst (divisions.ByNumber(left, right))
            | "op_Modulus", _ -> snd (divisions.ByNumber(left, right))
            | "op_BitwiseAnd", Some(low, high) when low = high && low.Sign >= 0 && (low &&& (low + 1I)).IsZero ->
                snd (divisions.By(left, low + 1I))
            | _ -> raise (NotTranslated $"{name} of these operands, in integers")

        wrap kind value

    let shiftInteger (name: string) (text: string) (kind: Type) (count: string) : Term =
        match Int32.TryParse count with
        | true, count when count >= 0 && count < widthOf kind ->
            if name = "op_LeftShift" then
                wrap kind (multiply (number text kind) (constant (power count)))
            else
                wrap kind (fst (divisions.By(number text kind, power count)))
        | _ -> raise (NotTranslated $"{name} by something that is not a number, in integers")

    let convertTo (target: Type) (term: Term) : Term =
        match term with
        | Term(text, kind) when theory = Integers -> wrap target (number text kind)
        | _ -> convert target term

    /// One of both; nothing is lost of what is known.
    let ifThenElse (condition: string) (yes: string) (no: string) (kind: Type) : Term =
        if theory = Integers && kind <> typeof<bool> then
            wrap kind (choose condition (number yes kind) (number no kind))
        else
            Term($"(ite {condition} {yes} {no})", kind)

    let assertRange (term: string) (kind: Type) =
        match rangeOf kind with
        | Some(low, high) when theory = Integers ->
            lines.Add $"(assert (and (<= {(constant low).Text} {term}) (<= {term} {(constant high).Text})))"
        | _ -> ()

    /// Declarations and definitions so far.
    member _.Lines: string seq = lines

    /// Keys of the functions that were met.
    member _.Used: HashSet<string> = used

    member _.Declare(name: string, kind: Type) : Term =
        lines.Add $"(declare-const {name} {sortOf theory kind})"
        assertRange name kind
        Term(name, kind)

    /// Adds what is known.
    member _.Assert(term: Term) : unit =
        match term with
        | Term(text, kind) when kind = typeof<bool> -> lines.Add $"(assert {text})"
        | _ -> raise (NotTranslated "a fact that is not a bool")

    /// Names a term, so that it is written once however often it is used, and equal terms have one name.
    member private this.Name(term: Term) : Term =
        match term with
        | Term(text, kind) when text.StartsWith '(' ->
            match names.TryGetValue text with
            | true, name -> Term(name, kind)
            | _ ->
                let name = $"v{names.Count}"
                names[text] <- name
                lines.Add $"(define-fun {name} () {sortOf theory kind} {text})"

                match ranges.TryGetValue text with
                | true, range -> ranges[name] <- range
                | _ -> ()

                Term(name, kind)
        | Tuple items -> Tuple(List.map this.Name items)
        | term -> term

    member private this.Call(method: MethodInfo, arguments: Term list) : Term =
        let key = keyOf method
        used.Add key |> ignore

        match opaque.TryFind key with
        | Some facts -> this.Opaque(method, List.map this.Name arguments, facts)
        | None -> this.Expand(method, key, arguments)

    member private this.Opaque(method: MethodInfo, arguments: Term list, facts: Expr list) : Term =
        let parts =
            arguments
            |> List.map (function
                | Term(text, kind) -> text, sortOf theory kind
                | _ -> raise (NotTranslated $"{method.Name} of a tuple"))

        if declared.Add method.Name then
            let sorts = parts |> List.map snd |> String.concat " "
            lines.Add $"(declare-fun {method.Name} ({sorts}) {sortOf theory method.ReturnType})"

        let texts = parts |> List.map fst |> String.concat " "
        let term = $"({method.Name} {texts})"

        if declared.Add term then
            assertRange term method.ReturnType

            for fact in facts do
                this.Assert(this.Apply(this.Translate(Map.empty, fact), arguments))

        Term(term, method.ReturnType)

    /// A function of arguments, one after the other or as a tuple.
    member private _.Apply(f: Term, arguments: Term list) : Term =
        let apply f argument =
            match f with
            | Function body -> body argument
            | _ -> raise (NotTranslated "an application of something that is not a function")

        List.fold apply f arguments

    member private this.Expand(method: MethodInfo, key: string, arguments: Term list) : Term =
        let definition =
            match changes.TryFind key with
            | Some changed -> changed
            | None ->
                match Expr.TryGetReflectedDefinition method with
                | Some definition -> definition
                | None -> raise (NotTranslated $"the function {key}: it has no [<ReflectedDefinition>]")

        let isTupled =
            match definition with
            | Lambda(variable, _) -> arguments.Length > 1 && Reflection.FSharpType.IsTuple variable.Type
            | _ -> false

        // Arguments may be used more than once.
        let arguments = List.map this.Name arguments
        this.Apply(this.Translate(Map.empty, definition), (if isTupled then [ Tuple arguments ] else arguments))

    member this.Translate(scope: Map<Var, Term>, expression: Expr) : Term =
        let translate = fun part -> this.Translate(scope, part)

        match expression with
        | Value(value, kind) -> literal value kind
        | Var variable -> scope[variable]
        | Lambda(variable, body) -> Function(fun argument -> this.Translate(scope.Add(variable, argument), body))
        | Let(variable, value, body) -> this.Translate(scope.Add(variable, this.Name(translate value)), body)
        | NewTuple items -> Tuple(List.map translate items)
        | TupleGet(tuple, index) ->
            match translate tuple with
            | Tuple items -> items[index]
            | _ -> raise (NotTranslated "a part of something that is not a tuple")
        | IfThenElse(condition, yes, no) ->
            match translate condition, translate yes, translate no with
            | Term(condition, _), Term(yes, kind), Term(no, _) -> ifThenElse condition yes no kind
            | _ -> raise (NotTranslated "a choice between tuples")
        | Application(f, argument) -> this.Apply(translate f, [ translate argument ])
        | NewObject(constructor, [ argument ]) when theory = Integers && constructor.DeclaringType = typeof<bigint> ->
            convertTo typeof<bigint> (translate argument)
        | Call(None, method, arguments) -> this.Operator(method, List.map translate arguments)
        | other -> raise (NotTranslated $"{other}")

    member private _.Comparison(name: string, kind: Type) : string =
        if theory = Bits then
            pick kind comparisons[name]
        else
            match name with
            | "op_LessThan" -> "<"
            | "op_LessThanOrEqual" -> "<="
            | "op_GreaterThan" -> ">"
            | _ -> ">="

    member private this.Operator(method: MethodInfo, arguments: Term list) : Term =
        // F#'s own, which wrap around: not those of Operators.Checked, nor a type's.
        match (if isOperator method then method.Name else ""), arguments with
        | name, [ Term(left, kind); Term(right, _) ] when arithmetic.ContainsKey name ->
            if theory = Integers then
                calculate name kind left right
            else
                Term($"({pick kind arithmetic[name]} {left} {right})", kind)
        | name, [ Term(left, kind); Term(right, _) ] when comparisons.ContainsKey name ->
            Term($"({this.Comparison(name, kind)} {left} {right})", typeof<bool>)
        | "op_Equality", [ Term(left, _); Term(right, _) ] -> Term($"(= {left} {right})", typeof<bool>)
        | "op_Inequality", [ Term(left, _); Term(right, _) ] -> Term($"(not (= {left} {right}))", typeof<bool>)
        | ("op_LeftShift" | "op_RightShift") as name, [ Term(text, kind); Term(count, _) ] when theory = Integers ->
            shiftInteger name text kind count
        | ("op_LeftShift" | "op_RightShift") as name, [ left; count ] -> shift name left count
        | "op_LogicalNot", [ Term(text, kind) ] when theory = Integers ->
            wrap
                kind
                (subtract (constant (if isSigned kind then -1I else power (widthOf kind) - 1I)) (number text kind))
        | "op_LogicalNot", [ Term(text, kind) ] -> Term($"(bvnot {text})", kind)
        | "Not", [ Term(text, _) ] -> Term($"(not {text})", typeof<bool>)
        | "Min", [ Term(left, kind); Term(right, _) ] ->
            let below = this.Comparison("op_LessThan", kind)
            ifThenElse $"({below} {left} {right})" left right kind
        | "Max", [ Term(left, kind); Term(right, _) ] ->
            let below = this.Comparison("op_LessThan", kind)
            ifThenElse $"({below} {left} {right})" right left kind
        | name, [ number ] when conversions.ContainsKey name -> convertTo conversions[name] number
        | _ -> this.Call(method, arguments)

/// Integer arithmetic that wraps around, as linear constraints: a quotient and a remainder are two new numbers x = c*q + r, shared by
/// all that divides x by c, and a number that is known to fit is not wrapped at all.
module Lightway.Specs.Proofs.Integers

open System.Collections.Generic

/// Smallest and largest value that a term can have; None: not known.
type Range = (bigint * bigint) option

/// A term of the integers, with its range.
type Number = { Text: string; Range: Range }

let constant (value: bigint) : Number =
    { Text =
        if value.Sign < 0 then
            $"(- {bigint.Negate value})"
        else
            string value
      Range = Some(value, value) }

let private floorDivide (value: bigint) (divisor: bigint) : bigint =
    let mutable rest = 0I
    let quotient = bigint.DivRem(value, divisor, &rest)
    if rest.Sign < 0 then quotient - 1I else quotient

let private both (f: bigint * bigint -> bigint * bigint -> bigint * bigint) (left: Number) (right: Number) : Range =
    match left.Range, right.Range with
    | Some left, Some right -> Some(f left right)
    | _ -> None

let add (left: Number) (right: Number) : Number =
    { Text = $"(+ {left.Text} {right.Text})"
      Range = both (fun (a, b) (c, d) -> a + c, b + d) left right }

let subtract (left: Number) (right: Number) : Number =
    { Text = $"(- {left.Text} {right.Text})"
      Range = both (fun (a, b) (c, d) -> a - d, b - c) left right }

let multiply (left: Number) (right: Number) : Number =
    let corners (a: bigint, b: bigint) (c: bigint, d: bigint) =
        let products = [ a * c; a * d; b * c; b * d ]
        List.min products, List.max products

    { Text = $"(* {left.Text} {right.Text})"
      Range = both corners left right }

/// One of both, by a condition.
let choose (condition: string) (yes: Number) (no: Number) : Number =
    { Text = $"(ite {condition} {yes.Text} {no.Text})"
      Range = both (fun (a, b) (c, d) -> min a c, max b d) yes no }

/// Where quotients and remainders are declared; `emit` takes each line.
type Divisions(emit: string -> unit) =
    let byConstant = Dictionary<string * bigint, Number * Number>()
    let byNumber = Dictionary<string * string, Number * Number>()

    let declare (name: string) (range: Range) : Number =
        emit $"(declare-const {name} Int)"

        match range with
        | Some(low, high) -> emit $"(assert (and (<= {(constant low).Text} {name}) (<= {name} {(constant high).Text})))"
        | None -> ()

        { Text = name; Range = range }

    let split (number: Number) (divisor: bigint) =
        let id = byConstant.Count

        let quotients =
            match number.Range with
            | Some(low, high) -> Some(floorDivide low divisor, floorDivide high divisor)
            | None -> None

        let quotient = declare $"q{id}" quotients
        let rest = declare $"r{id}" (Some(0I, divisor - 1I))
        emit $"(assert (= {number.Text} (+ (* {divisor} {quotient.Text}) {rest.Text})))"
        quotient, rest

    /// Quotient, rounded down, and remainder by a positive constant.
    member _.By(number: Number, divisor: bigint) : Number * Number =
        match number.Range with
        | Some(low, high) when low.Sign >= 0 && high < divisor -> constant 0I, number
        | _ ->
            match byConstant.TryGetValue((number.Text, divisor)) with
            | true, found -> found
            | _ ->
                let found = split number divisor
                byConstant[(number.Text, divisor)] <- found
                found

    /// Quotient, rounded towards zero as F# does, and the remainder; of a division by zero nothing is known.
    member _.ByNumber(number: Number, divisor: Number) : Number * Number =
        match byNumber.TryGetValue((number.Text, divisor.Text)) with
        | true, found -> found
        | _ ->
            let id = byNumber.Count

            let quotients =
                match number.Range with
                | Some(low, high) ->
                    let most = max (abs low) (abs high)
                    Some(-most, most)
                | None -> None

            let quotient = declare $"dq{id}" quotients
            let rest = declare $"dr{id}" None
            let x, d, q, r = number.Text, divisor.Text, quotient.Text, rest.Text
            emit $"(assert (=> (distinct {d} 0) (= {x} (+ (* {q} {d}) {r}))))"
            emit $"(assert (=> (and (>= {x} 0) (> {d} 0)) (and (<= 0 {r}) (< {r} {d}) (<= 0 {q}) (<= {q} {x}))))"
            emit $"(assert (=> (and (>= {x} 0) (< {d} 0)) (and (<= 0 {r}) (< {r} (- {d})))))"
            emit $"(assert (=> (and (< {x} 0) (> {d} 0)) (and (< (- {d}) {r}) (<= {r} 0))))"
            emit $"(assert (=> (and (< {x} 0) (< {d} 0)) (and (< {d} {r}) (<= {r} 0))))"
            byNumber[(number.Text, divisor.Text)] <- (quotient, rest)
            quotient, rest

    /// The number of `width` bits that this one wraps around to.
    member this.Wrap(number: Number, width: int, isSigned: bool) : Number =
        let size = bigint.Pow(2I, width)
        let half = if isSigned then size / 2I else 0I

        match number.Range with
        | Some(low, high) when low >= -half && high < size - half -> number
        | _ when isSigned -> subtract (snd (this.By(add number (constant half), size))) (constant half)
        | _ -> snd (this.By(number, size))

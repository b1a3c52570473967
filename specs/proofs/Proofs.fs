/// The laws that z3 decides for all inputs, and their mutants.
module Lightway.Specs.Proofs.Proofs

open System
open System.IO
open System.Text.RegularExpressions
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Proofs.Law

let private all = ChecksumLaws.laws @ HeaderLaws.laws

let private needZ3 () =
    if not (Solver.isThere ()) then
        skiptest "z3 is not installed (Debian: apt install z3)"

/// What is wrong if a law is not proved.
let private faultOf (verdict: Verdict) : string option =
    match verdict with
    | Proved -> None
    | Refuted example -> Some $"a counterexample: {shown example}"
    | Undecided why -> Some $"z3 does not decide it: {why}"

let private proof (law: Law) =
    testCase $"{law.Source}: {law.Name}"
    <| fun () ->
        needZ3 ()
        fst (prove all law) |> faultOf |> Option.iter failtest

/// The counterexample must be one for the code too, not only for its translation.
let private refutation (law: Law) =
    testCase $"{law.Name}: a counterexample is found when {law.Mutant.What}"
    <| fun () ->
        needZ3 ()

        match fst (refute law) with
        | Refuted example ->
            Expect.isFalse
                (Running.holds (changesOf law) law.Statement example)
                $"the changed code breaks the law for {shown example}"

            Expect.isTrue (Running.holds Map.empty law.Statement example) $"the code keeps it for {shown example}"
        | Proved -> failtest "the law holds all the same"
        | Undecided why -> failtest $"z3 does not decide it: {why}"

/// What z3 says of the translation, the compiled code must do.
let private compiled (law: Law) =
    testCase law.Name
    <| fun () ->
        match Running.sample 20260801 2000 law.Statement with
        | None -> ()
        | Some inputs -> failtest $"it does not hold for {shown inputs}"

/// The translator itself, on statements whose truth is known.
let private translator =
    let decides name expected statement =
        testCase name
        <| fun () ->
            needZ3 ()

            match fst (decide Smt.Bits Map.empty statement), expected with
            | Proved, true
            | Refuted _, false -> ()
            | verdict, _ -> failtest $"{verdict}"

    let refuses name expected statement =
        testCase $"{name} is refused by its name"
        <| fun () ->
            Expect.throwsC (fun () -> decide Smt.Bits Map.empty statement |> ignore) (fun error ->
                match error with
                | Smt.NotTranslated what -> Expect.stringContains what expected "its name"
                | other -> failtest $"{other}")

    testList
        "what is translated"
        [ decides "numbers wrap around" true <@@ fun (a: uint16) -> a + 0xFFFFus + 1us = a @@>
          decides "a wrong statement is refuted" false <@@ fun (a: uint16) -> a + 1us > a @@>
          decides
              "comparisons of signed numbers are signed"
              true
              <@@ fun (a: int) -> (a < 0) = (uint32 a > 0x7FFF_FFFFu) @@>
          decides "shifts count modulo the width" true <@@ fun (a: uint64) -> a <<< 64 = a @@>
          decides "shifts of signed numbers keep the sign" true <@@ fun (a: int) -> (a >>> 31 = -1) = (a < 0) @@>
          decides "conversions extend by the sign of their source" true <@@ fun (a: int16) -> int64 a < 40000L @@>
          decides "conversions cut" true <@@ fun (a: uint32) -> uint32 (uint16 a) = a % 65536u @@>
          decides "tuples have parts" true <@@ fun (a: int) (b: int) -> (let x, y = b, a in x = b && y = a) @@>

          refuses "a method" "ToString" <@@ fun (a: int) -> a.ToString() = "" @@>
          refuses "arithmetic that does not wrap around" "Checked" <@@ fun (a: int) -> Checked.(+) a 1 > a @@>
          refuses "a conversion that does not wrap around" "Checked" <@@ fun (a: int) -> Checked.byte a = 0uy @@> ]

/// What a law came to, as lines.
let private outcome (laws: Law list) (law: Law) : bool * float * string list =
    let verdict, seconds = prove laws law
    let broken, looking = refute law

    let names = String.concat ", " (functionsOf law)

    let line =
        match verdict with
        | Proved -> "proved"
        | Refuted example -> $"REFUTED: {shown example}"
        | Undecided why -> $"UNDECIDED: {why}"

    let counterexample =
        match broken with
        | Refuted example -> shown example
        | Proved -> "NONE FOUND"
        | Undecided why -> $"UNDECIDED: {why}"

    let isRight =
        match verdict, broken with
        | Proved, Refuted _ -> true
        | _ -> false

    let uses =
        [ for name in law.Using do
              $"{String(' ', 21)}using: {name}" ]

    isRight,
    seconds + looking,
    [ $"{line, -8} {seconds, 6:F2} s  {law.Source}: {law.Name}"; $"{String(' ', 21)}of {names}" ]
    @ uses
    @ [ $"{String(' ', 21)}if {law.Mutant.What}: {counterexample} ({looking:F2} s)" ]

/// Proves these laws and refutes their mutants, and prints what they came to; the exit code.
let private report (print: string -> unit) (laws: Law list) : int =
    let clock = Diagnostics.Stopwatch.StartNew()

    let outcomes =
        laws
        |> Array.ofList
        |> Array.Parallel.map (fun law ->
            let isRight, seconds, lines = outcome all law
            lock laws (fun () -> List.iter print lines)
            isRight, seconds)

    let right = outcomes |> Seq.filter fst |> Seq.length
    let work = outcomes |> Seq.sumBy snd

    print
        $"{right} of {outcomes.Length} laws proved for all inputs, each refuted by its mutant, in {clock.Elapsed.TotalSeconds:F0} s ({work:F0} s of z3)"

    if right > 0 && right = outcomes.Length then 0 else 1

/// That a broken law, or a broken function, does not go unnoticed.
let private faults =
    let truth = List.find (fun (law: Law) -> law.Name = ChecksumLaws.FoldLaw) all

    let broken =
        { truth with
            Name = "a fold is the sum's low word"
            Statement = <@@ fun (sum: uint64) -> Checksum.fold sum = uint16 sum @@> }

    let bytes = Regex @"sum = [0-9a-f]{2}( [0-9a-f]{2}){7}"

    /// The number of the bytes that are printed.
    let printed (text: string) : Input =
        let found = bytes.Match text
        Expect.isTrue found.Success $"8 bytes in {text}"

        { Variable = "sum"
          Kind = typeof<uint64>
          Value = Convert.ToUInt64(found.Value.Substring(6).Replace(" ", ""), 16) }

    testList
        "what is wrong is printed"
        [ testCase "a law that does not hold fails with the bytes of a counterexample"
          <| fun () ->
              needZ3 ()

              let fault = prove [ broken ] broken |> fst |> faultOf |> Option.defaultValue "none"
              let example = printed fault
              let sum = example.Value
              Expect.notEqual (Checksum.fold sum) (uint16 sum) "the code says so, too"

          testCase "a function that is wrong fails with the bytes of a counterexample"
          <| fun () ->
              needZ3 ()

              let verdict, _ =
                  decide Smt.Bits (changesOf truth) <@@ fun (sum: uint64) -> (Checksum.fold sum = 0us) = (sum = 0UL) @@>

              let example = faultOf verdict |> Option.defaultValue "none" |> printed
              Expect.notEqual example.Value 0UL "a sum that is not zero"
              Expect.equal (uint16 example.Value) 0us "and that the wrong fold makes zero"

          testCase "a law that is not proved makes `prove` fail"
          <| fun () ->
              needZ3 ()
              let lines = Collections.Generic.List<string>()
              Expect.equal (report lines.Add [ truth; broken ]) 1 "exit code"
              let text = String.concat "\n" lines
              Expect.stringContains text "REFUTED" text
              Expect.stringContains text "1 of 2 laws proved" text
              printed text |> ignore ]

/// The cells of a law in the table of docs/verification.md, but for the time.
let private cells (law: Law) : string list =
    let functions =
        functionsOf law |> List.map (fun name -> $"`{name}`") |> String.concat ", "

    let numberOf name =
        1 + List.findIndex (fun (other: Law) -> other.Name = name) all

    let uses =
        law.Using |> List.map (fun name -> $" from {numberOf name}") |> String.concat ","

    let proof =
        match law.Theory with
        | Smt.Bits -> "bit vectors"
        | Smt.Integers -> "integers"

    [ string (numberOf law.Name); law.Name; law.Source; functions; $"{proof}{uses}"; law.Mutant.What ]

/// Which of a row's cells has the time, in seconds.
[<Literal>]
let private TimeAt = 5

/// Prints the rows of the table; the exit code.
let table () : int =
    let row (law: Law) =
        let verdict, seconds = prove all law
        let cells = cells law |> List.insertAt TimeAt $"{seconds:F2}" |> String.concat " | "
        faultOf verdict |> Option.iter (fun fault -> eprintfn $"{law.Name}: {fault}")
        printfn $"| {cells} |"
        verdict.IsProved

    if all |> List.map row |> List.forall id then 0 else 1

let rec private rootFrom (folder: string) : string =
    if File.Exists(Path.Combine(folder, "Lightway.slnx")) then
        folder
    else
        match Path.GetDirectoryName folder with
        | null -> failwith $"no folder above {AppContext.BaseDirectory} has Lightway.slnx"
        | above -> rootFrom above

let private documented =
    testCase "docs/verification.md has the row of each law, and of no other"
    <| fun () ->
        let page =
            File.ReadAllLines(Path.Combine(rootFrom AppContext.BaseDirectory, "docs", "verification.md"))

        let rows =
            page
            |> Seq.skipWhile (fun line -> not (line.StartsWith "## Proved for all inputs"))
            |> Seq.skip 1
            |> Seq.takeWhile (fun line -> not (line.StartsWith "## "))
            |> Seq.filter (fun line -> line.StartsWith "| ")
            |> Seq.skip 2
            |> Seq.map (fun line -> List.ofArray (line.Trim([| '|'; ' ' |]).Split " | "))
            |> List.ofSeq

        Expect.equal
            (List.map (List.removeAt TimeAt) rows)
            (List.map cells all)
            "the rows that `Lightway.Specs prove --table` prints"

        for row in rows do
            Expect.isTrue (Regex.IsMatch(row[TimeAt], @"^\d+\.\d\d$")) $"seconds: {row[TimeAt]}"

let laws =
    testList
        "Proofs"
        [ translator
          faults
          documented
          testList "for all inputs" (List.map proof all)
          testList "as compiled, for some inputs" (List.map compiled all)
          testList "broken in one point" (List.map refutation all) ]

/// Proves everything, or the laws whose names contain `part`, and prints them; the exit code.
let run (part: string) : int =
    let chosen = all |> List.filter _.Name.Contains(part)

    if not (Solver.isThere ()) then
        eprintfn "z3 is not installed. Install it, on Debian by `apt install z3`, and run this again."
        1
    elif chosen.IsEmpty then
        eprintfn $"no law has '{part}' in its name"
        2
    else
        report (printfn "%s") chosen

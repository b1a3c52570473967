/// Runs every law. Its last line is `N passed, N failed, N skipped`; the exit code is 0 if none failed.
module Lightway.Specs.Program

open System
open System.IO
open Expecto

type private Settings =
    {
        /// Start of every random number: the same seed makes the same run.
        Seed: uint64
        /// Cases of each property; None: as many as its law says.
        Count: int option
        /// Superpackets that go through the kernel.
        Superpackets: int
        /// File for the three totals, as numbers in one line.
        Summary: string option
        /// Arguments for Expecto.
        Rest: string list
    }

let private usage =
    """prove [PART]: prove the laws that hold for all inputs, or those with PART in their names, and print them
search [PART]: visit every state of the protocol's machines, or of those with PART in their names, and print how many
options: --seed N            start of all random numbers (default 20260801)
         --count N           cases of each property (default: as its law says)
         --superpackets N    superpackets compared with the kernel (default 10000)
         --summary FILE      write "passed failed skipped" to FILE
and those of Expecto, such as --filter-test-list NAME"""

let private (|Number|_|) (text: string) =
    match UInt64.TryParse text with
    | true, value when value > 0UL && value <= uint64 Int32.MaxValue -> Some(int value)
    | _ -> None

let rec private parse (settings: Settings) (arguments: string list) : Result<Settings, string> =
    match arguments with
    | "--seed" :: Number seed :: rest -> parse { settings with Seed = uint64 seed } rest
    | "--count" :: Number count :: rest -> parse { settings with Count = Some count } rest
    | "--superpackets" :: Number count :: rest -> parse { settings with Superpackets = count } rest
    | "--summary" :: file :: rest -> parse { settings with Summary = Some file } rest
    | ("--seed" | "--count" | "--superpackets" | "--summary") as name :: _ -> Error $"{name} needs a value above 0"
    | other :: rest ->
        parse
            { settings with
                Rest = settings.Rest @ [ other ] }
            rest
    | [] -> Ok settings

let private allLaws (settings: Settings) =
    testList
        "Laws"
        [ Rfc1071.laws
          Rfc1624.laws
          Rfc768.laws
          Segmentation.laws
          Refusals.laws
          VirtioNet.laws
          AddressRewrite.laws
          AddressExchange.laws
          IcmpErrors.laws
          EcnTable.laws
          MssClamp.laws
          KnownKernelsTable.laws
          PacketSizes.laws
          SegmenterEdges.laws
          Coalescing.laws
          FlowTable.laws
          KernelOracle.laws settings.Seed settings.Superpackets
          CoalescingOracle.laws settings.Seed 400
          ThirdOpinion.laws settings.Seed
          WireFormat.laws
          FragmentReassembly.laws
          ReplayWindowModel.laws
          ExpresslaneFormat.laws
          ExpresslaneExchange.laws
          SessionIds.laws
          KeepaliveMachine.laws
          PathMtuDiscovery.laws
          RejectMachine.laws
          ReconnectMachine.laws
          ServerRaces.laws
          BurstCap.laws
          LifecycleTable.laws
          EncodingMachine.laws
          ClientHellos.laws
          DispatchTable.laws
          SourceKeys.laws
          TokenBuckets.laws
          HalfOpenPlaces.laws
          LoginGate.laws
          LoginGateRules.laws
          LoginLine.laws
          AdmissionRules.laws
          FairShares.laws
          ProxyHeaders.laws
          Networks.laws
          TokenLaws.laws
          SessionUses.laws
          Proofs.Proofs.laws
          Search.Searches.laws ]

/// FsCheck's second number: any odd one gives a separate sequence for each seed.
[<Literal>]
let private Gamma = 0x9E3779B97F4A7C15UL

/// Gives every property the seed, numbers of every size and, if asked for, the count; one that brought its own replay
/// keeps it.
let rec private configured (settings: Settings) (test: Test) : Test =
    let change (config: FsCheckConfig) =
        { config with
            replay = config.replay |> Option.orElse (Some(settings.Seed, Gamma, None))
            maxTest = settings.Count |> Option.defaultValue config.maxTest
            arbitrary = config.arbitrary @ [ typeof<Generators.WordArbitrary> ] }

    match test with
    | TestCase(AsyncFsCheck(config, stress, run), focus) ->
        let config = config |> Option.defaultValue FsCheckConfig.defaultConfig |> change
        TestCase(AsyncFsCheck(Some config, stress, run), focus)
    | TestCase _ -> test
    | TestList(tests, focus) -> TestList(List.map (configured settings) tests, focus)
    | TestLabel(label, inner, focus) -> TestLabel(label, configured settings inner, focus)
    | Test.Sequenced(how, inner) -> Test.Sequenced(how, configured settings inner)

let private run (settings: Settings) : int =
    let mutable totals = None

    let keep =
        CLIArguments.Append_Summary_Handler(
            SummaryHandler.SummaryHandler(fun summary ->
                totals <-
                    Some(summary.passed.Length, summary.failed.Length + summary.errored.Length, summary.ignored.Length))
        )

    printfn $"seed {settings.Seed}"

    let code =
        allLaws settings
        |> configured settings
        |> runTestsWithCLIArgs [ keep; CLIArguments.No_Spinner; CLIArguments.Colours 0 ] (Array.ofList settings.Rest)

    match totals with
    | None -> code // a listing, a usage text, or arguments that Expecto did not understand
    | Some(passed, failed, skipped) ->
        settings.Summary
        |> Option.iter (fun file -> File.WriteAllText(file, $"{passed} {failed} {skipped}\n"))

        Console.Out.Flush()
        // Past Expecto's writer, which pads lines with blanks.
        use output = new StreamWriter(Console.OpenStandardOutput())
        output.Write $"{passed} passed, {failed} failed, {skipped} skipped\n"
        if failed > 0 then max code 1 else code

[<EntryPoint>]
let main arguments =
    let defaults =
        { Seed = 20260801UL
          Count = None
          Superpackets = 10_000
          Summary = None
          Rest = [] }

    match List.ofArray arguments with
    | [ "search" ] -> Search.Searches.run ""
    | [ "search"; part ] -> Search.Searches.run part
    | [ "prove" ] -> Proofs.Proofs.run ""
    | [ "prove"; "--table" ] -> Proofs.Proofs.table ()
    | [ "prove"; part ] -> Proofs.Proofs.run part
    | arguments ->

        match parse defaults arguments with
        | Ok settings -> run settings
        | Error message ->
            eprintfn $"{message}\n{usage}"
            2

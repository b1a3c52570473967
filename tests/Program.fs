module Lightway.Tests.Program

open System.IO
open Expecto
open Expecto.Impl

/// `--summary FILE` writes "passed failed skipped"; everything else is Expecto's.
let private splitSummary (argv: string[]) =
    match Array.tryFindIndex ((=) "--summary") argv with
    | Some i when i + 1 < argv.Length -> Some argv[i + 1], Array.append argv[.. i - 1] argv[i + 2 ..]
    | _ -> None, argv

/// `--part 1` and `--part 2` run a half each, so that two processes can share the work; without it, all tests run.
let private splitPart (argv: string[]) =
    match Array.tryFindIndex ((=) "--part") argv with
    | Some i when i + 1 < argv.Length -> Some argv[i + 1], Array.append argv[.. i - 1] argv[i + 2 ..]
    | _ -> None, argv

[<EntryPoint>]
let main argv =
    let file, rest = splitSummary argv
    let part, rest = splitPart rest
    let mutable counts = 0, 0, 0

    let count (summary: TestRunSummary) =
        printfn "The slowest tests:"

        for test, result in
            summary.results |> List.sortByDescending (fun (_, result) -> result.duration) |> List.truncate 20 do
            let name = String.concat ", " test.name
            printfn $"%6.1f{result.duration.TotalSeconds} s  {name}"

        counts <- summary.passed.Length, summary.failed.Length + summary.errored.Length, summary.ignored.Length

    let first =
        [ RoomsTests.tests
          testList
              "Options"
              [ OptionValuesTests.tests
                ServerOptionsTests.tests
                OptionLayersTests.tests
                ClientOptionsTests.tests
                UserRulesTests.tests
                OptionPagesTests.tests
                OptionCatalogTests.tests
                CheckConfigTests.tests
                PagesForShellsTests.tests ]
          DocsTests.tests
          PackageTests.tests
          AuthTests.tests
          TokenTests.tests
          AuthCommandTests.tests
          AddressPoolTests.tests
          InitTests.tests
          FootprintTests.tests
          FileChecksTests.tests
          LoggingTests.tests
          PemFilesTests.tests
          MetricsFileTests.tests
          StartTests.tests
          ExitCodesTests.tests
          ServiceTests.tests
          KernelTests.tests
          SendBatchTests.tests
          TunBatchTests.tests
          InsidePathTests.tests
          ConnectionTests.tests
          ConnectionKeysTests.tests
          HooksTests.tests
          StreamHooksTests.tests
          WorkerTests.tests
          GateTests.tests
          ManagerTests.tests
          ControlTests.tests
          HostPlanTests.tests
          AdmissionTests.tests
          LoginTests.tests
          ReloadTests.tests
          FairnessTests.tests
          AeadTests.tests
          SecretsTests.tests
          ReconnectorTests.tests
          ReconnectTests.tests
          ClientHostTests.tests
          ClientRoutesTests.tests
          ServerTests.tests
          LoginEndToEndTests.tests
          ReloadEndToEndTests.tests
          TcpModeTests.tests
          ControlEndToEndTests.tests
          HostSetUpTests.tests
          MetricsTests.tests
          MonitoringFilesTests.tests
          StatusPageTests.tests
          AccountingTests.tests
          SimulationTests.tests ]

    let second =
        [ EndToEndTests.tests
          WalkthroughTests.tests
          DeployTests.tests
          LabTests.tests
          ClientEndToEndTests.tests
          ClientPlansTests.tests
          ClientMovesTests.tests
          ClientLeaksTests.tests
          ClientDnsTests.tests
          KeyLogTests.tests
          ServedOptionsTests.tests
          OffloadTests.tests
          PestTests.tests
          LoadTests.tests
          NetworkErrorTests.tests
          EcnTests.tests
          MtuTests.tests
          PathMtuTests.tests
          ProfileTests.tests ]

    let first = first @ [ ClientKeysTests.tests (first @ second) ]

    let tests =
        testList
            "Lightway"
            (match part with
             | Some "1" -> first
             | Some "2" -> second
             | _ -> first @ second)

    let code =
        runTestsWithCLIArgs [ Append_Summary_Handler(SummaryHandler count); Sequenced ] rest tests

    let passed, failed, skipped = counts
    file |> Option.iter (fun file -> File.WriteAllText(file, $"{passed} {failed} {skipped}\n"))
    printfn $"{passed} passed, {failed} failed, {skipped} skipped"
    code

// The build: `dotnet fsi build.fsx -t TARGET [ARGUMENTS]`; `--list` shows the targets. Needs the .NET SDK and nothing else:
// what else a target uses, it installs with apt when run by root, or it says what to install.
#r "nuget: System.Reactive, 5.0.0" // what FAKE asks for is gone from the feed; naming its successor avoids a warning
#r "nuget: Fake.Core.Target, 5.20.3"
#r "nuget: Fake.IO.FileSystem, 5.20.3"
#load "build/Steps.fsx"
#load "build/Native.fsx"
#load "build/Package.fsx"

open System
open System.IO
open Fake.Core
open Fake.Core.TargetOperators
open Fake.IO
open Fake.IO.FileSystemOperators
open Steps
open Native

// Code.

let fsharpSources =
    [ "segmenter"; "protocol"; "options"; "specs"; "tests"; "lab"; "bench"; "build"; "build.fsx" ]

let csharpSources = [ "tunnel"; "hosting"; "server"; "client"; "samples" ]

let format isCheck =
    let option = if isCheck then [ "--check" ] else []
    dotnetOnline [ "tool"; "restore" ]
    dotnet ([ "fantomas" ] @ option @ fsharpSources)
    dotnet ([ "csharpier"; (if isCheck then "check" else "format") ] @ csharpSources)

let build () =
    dotnetOnline [ "restore"; "Lightway.slnx"; "--locked-mode" ]
    dotnet [ "build"; "Lightway.slnx"; "-c"; "Release"; "--no-restore" ]

let private executable name =
    artifacts </> "bin" </> name </> "release" </> name

// Test programs write `passed failed skipped` to a file; the sum is the last line of the build's output.

type Suite =
    { Name: string
      Passed: int
      Failed: int
      Skipped: int }

let mutable private suites: Suite list = []

/// Runs a test program, in as many processes at the same time as there are lists of arguments.
let private runParts (name: string) (parts: string list list) : unit =
    let summaries =
        [ for i in 1 .. parts.Length -> artifacts </> $"{name}.{i}.summary" ]

    List.iter File.Delete summaries

    let codes =
        List.map2 (fun summary part -> [ "--summary"; summary ] @ part) summaries parts
        |> exitCodesOf (executable name)

    for summary, code in List.zip summaries codes do
        let passed, failed, skipped =
            match
                if File.Exists summary then
                    File.ReadAllText(summary).Split()
                else
                    [||]
            with
            | [| passed; failed; skipped |]
            | [| passed; failed; skipped; "" |] -> int passed, int failed, int skipped
            | _ ->
                say $"{name} ended with exit code {code} and wrote no summary: counted as a failure"
                0, 1, 0

        // An exit code that the summary does not explain is a failure too.
        let failed = if code <> 0 then max failed 1 else failed

        suites <-
            { Name = name
              Passed = passed
              Failed = failed
              Skipped = skipped }
            :: suites

let runSuite (name: string) (extra: string list) : unit = runParts name [ extra ]

/// Most of the time tests wait for something, so two halves share the machine. What follows `Test` is for one process.
let private runTests (extra: string list) : unit =
    runParts
        "Lightway.Tests"
        (if extra.IsEmpty then
             [ [ "--part"; "1" ]; [ "--part"; "2" ] ]
         else
             [ extra ])

let private isContinuousIntegration =
    List.contains (Environment.GetEnvironmentVariable "CI") [ "true"; "True"; "1" ]

/// Prints the sum of all suites and returns the exit code they ask for.
let summarize () =
    let sum count = suites |> List.sumBy count
    let passed, failed, skipped = sum _.Passed, sum _.Failed, sum _.Skipped

    if suites.IsEmpty then
        0
    else
        for suite in List.rev suites do
            say $"{suite.Name}: {suite.Passed} passed, {suite.Failed} failed, {suite.Skipped} skipped"

        let isSkipRefused = skipped > 0 && isContinuousIntegration

        if isSkipRefused then
            say "CI is set, and there a test that does not run is a failure"

        let tail = if skipped > 0 then $", {skipped} skipped" else ""
        printfn $"{passed} passed, {failed} failed{tail}"
        if failed > 0 || isSkipRefused then 1 else 0

let publish () =
    for name, folder in [ "Server", "server"; "Client", "client" ] do
        let target = artifacts </> "publish" </> folder
        dotnet [ "publish"; $"Lightway.{name}.csproj"; "-c"; "Release"; "--no-build"; "-o"; target ]

        match Environment.GetEnvironmentVariable "LIGHTWAY_WOLFSSL" with
        | library when not (String.IsNullOrEmpty library) ->
            File.Copy(library, target </> "libwolfssl.so", overwrite = true)
        | _ -> say $"{target} has no libwolfssl.so: the system's is used"

        for library in Option.toList (ipsecMb ()) do
            File.Copy(library, target </> Path.GetFileName library, overwrite = true)

let pack () =
    let target = artifacts </> "packages"
    Shell.cleanDir target

    for name in [ "Segmenter"; "Protocol" ] do
        dotnet [ "pack"; $"Lightway.{name}.fsproj"; "-c"; "Release"; "--no-build"; "-o"; target ]

// Targets.

let mutable private targetNames: string list = []

let private target name description body =
    targetNames <- name :: targetNames
    Target.description description
    Target.create name (fun _ -> body ())

let private initTargets (requested: string option) (extra: string list) =
    let bench = executable "Lightway.Bench"
    // As a part of Test it runs for its usual time: what follows `Test` is for the test programs.
    let fuzzing = if requested = Some "Fuzz" then extra else []
    target "Native" "Find wolfSSL, or build the pinned release" native
    target "Build" "Compile everything; warnings are errors; locked restore" build
    target "Format" "Format all code" (fun () -> format false)
    target "CheckFormat" "Fail on code that Format would change" (fun () -> format true)

    target "Specs" "The laws of the pure core" (fun () ->
        installOracles ()
        runSuite "Lightway.Specs" extra)

    target "Prove" "The laws of arithmetic, decided for all inputs by z3 and printed; a part of Specs" (fun () ->
        installProver ()
        run (executable "Lightway.Specs") ("prove" :: extra))

    target "Search" "Every state of the protocol's machines up to a bound; a part of Specs" (fun () ->
        run (executable "Lightway.Specs") ("search" :: extra))

    target "Fuzz" "60 s of hostile bytes for every parser; --seconds N" (fun () -> runSuite "Lightway.Fuzz" fuzzing)

    target "Mutate" "Break core and engine in one point after the other: a law or test must notice" (fun () ->
        dotnet ([ "fsi"; root </> "specs" </> "mutate.fsx" ] @ extra))

    target "Test" "Specs, fuzzing, tests and end-to-end tests; root" (fun () ->
        installLab ()
        installMonitors ()
        unpackLab ()
        runTests extra

        match suites |> List.sumBy _.Failed with
        | 0 -> ()
        | failed -> failwith $"{failed} failed")

    target "Demo" "Downloads through a real server, offload off and on, measured; root" (fun () ->
        installLab ()
        run bench ("demo" :: extra))

    target "Bench" "Throughput and cost end to end, next to wireguard-go if it is installed; root" (fun () ->
        installLab ()
        run bench ("matrix" :: extra))

    target "Pests" "What a download keeps while others do what they should not; --minutes N; root" (fun () ->
        installLab ()
        run bench ("pests" :: extra))

    target "Scale" "What a server costs per client, from 4 to 5000, and how fresh programs start; root" (fun () ->
        installLab ()
        run bench ("scale" :: extra)
        run bench [ "start" ])

    target "Micro" "Nanoseconds per segment, step by step" (fun () -> run bench ("micro" :: extra))
    target "Publish" "Server and client, ready to copy, in artifacts/publish" publish
    target "Pack" "Packages of the pure core, for other programs, in artifacts/packages" pack
    target "Package" "Programs as single files, .deb packages, SBOMs, in artifacts/dist; x64 and arm64" Package.all

    target
        "QuickPackage"
        "The .deb packages for this processor, not compressed, in artifacts/package/quick"
        Package.quick


    target "PackageTest" "Package twice, compare, and boot a Debian with the packages; root, half an hour" (fun () ->
        install [ program "debootstrap" "debootstrap"; program "systemd-nspawn" "systemd-container" ]

        run "bash" [ root </> "tests" </> "deploy" </> "reproduce.sh"; artifacts </> "reproduced" ]
        let packages = artifacts </> "reproduced" </> "first" </> "artifacts" </> "dist"
        run "bash" [ root </> "tests" </> "deploy" </> "boot.sh"; packages ])

    target "Clean" "Remove artifacts" (fun () -> Shell.deleteDir artifacts)

    for dependency in [ "Native"; "Build"; "CheckFormat"; "Specs"; "Fuzz" ] do
        dependency ==> "Test" |> ignore

    for onRequest in [ "Demo"; "Bench"; "Scale"; "Pests"; "Micro"; "Publish" ] do
        "Native" ==> onRequest |> ignore
        "Build" ==> onRequest |> ignore

    for onBuild in [ "Specs"; "Prove"; "Search"; "Fuzz"; "Pack" ] do
        "Build" ==> onBuild |> ignore

    "Native" ==> "QuickPackage" |> ignore
    "Build" ?=> "QuickPackage" ==> "Test" |> ignore
    "Native" ?=> "Build" ?=> "CheckFormat" ?=> "Specs" ?=> "Fuzz" |> ignore

let private needsRoot = [ "Test"; "Demo"; "Bench"; "Scale"; "Pests"; "PackageTest" ]

/// Runs the whole build again as root. The build itself then hands `artifacts` back to the user who called sudo.
let private rerunWithSudo name extra =
    if not (onPath "sudo") then
        eprintfn $"build: {name} makes network namespaces and TUN devices. Run it as root; there is no sudo here."
        1
    else
        say $"{name} needs root (network namespaces, TUN devices): running again with sudo"

        let kept =
            [ "LIGHTWAY_WOLFSSL"; "CI"; "DOTNET_ROOT"; "DOTNET_CLI_TELEMETRY_OPTOUT"; "DOTNET_NOLOGO" ]

        let environment =
            [ for variable in kept do
                  match Environment.GetEnvironmentVariable variable with
                  | null -> ()
                  | value -> $"{variable}={value}" ]

        let command = [ Environment.ProcessPath; "fsi"; "build.fsx"; "-t"; name ] @ extra
        exitCodeOf "sudo" ([ "-H"; "env" ] @ environment @ command)

let private returnArtifacts () =
    match Environment.GetEnvironmentVariable "SUDO_UID", Environment.GetEnvironmentVariable "SUDO_GID" with
    | null, _
    | _, null -> ()
    | user, group ->
        if Environment.IsPrivilegedProcess && Directory.Exists artifacts then
            run "chown" [ "-R"; $"{user}:{group}"; artifacts ]

let private runTarget name =
    let isDone =
        try
            Target.run 1 name []
            true
        with error ->
            eprintfn $"build: {name}: {error.GetBaseException().Message}"
            false

    returnArtifacts ()
    let code = summarize ()

    if interrupted () then 130
    else if isDone then code
    else 1

let private main arguments =
    let rec parse name extra =
        function
        | "--list" :: _ -> None, extra
        | ("-t" | "--target") :: value :: rest -> parse (Some value) extra rest
        | argument :: rest -> parse name (extra @ [ argument ]) rest
        | [] -> name, extra

    let name, extra = parse None [] arguments

    Context.setExecutionContext (Context.RuntimeContext.Fake(Context.FakeExecutionContext.Create false "build.fsx" []))
    initTargets name extra

    // MSBuild's nodes would outlive the build and hold its output open.
    for variable in [ "DOTNET_CLI_TELEMETRY_OPTOUT"; "DOTNET_NOLOGO"; "MSBUILDDISABLENODEREUSE" ] do
        Environment.SetEnvironmentVariable(variable, "1")

    match name with
    | None ->
        Target.listAvailable ()
        if extra.IsEmpty then 0 else 2
    | Some name when not (List.contains name targetNames) ->
        eprintfn $"build: {name} is not a target; --list shows them"
        2
    | Some name when List.contains name needsRoot && not Environment.IsPrivilegedProcess -> rerunWithSudo name extra
    | Some name -> runTarget name

exit (main (List.tail (List.ofArray fsi.CommandLineArgs)))

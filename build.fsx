// The build: `dotnet fsi build.fsx -t TARGET [ARGUMENTS]`; `--list` shows the targets. Needs the .NET SDK and nothing else:
// what else a target uses, it installs with apt when run by root, or it says what to install.
#r "nuget: System.Reactive, 5.0.0" // what FAKE asks for is gone from the feed; naming its successor avoids a warning
#r "nuget: Fake.Core.Target, 5.20.3"
#r "nuget: Fake.IO.FileSystem, 5.20.3"

open System
open System.Diagnostics
open System.IO
open System.Runtime.InteropServices
open System.Security.Cryptography
open System.Text
open Fake.Core
open Fake.Core.TargetOperators
open Fake.IO
open Fake.IO.FileSystemOperators

let root = __SOURCE_DIRECTORY__
let artifacts = root </> "artifacts"
let say (text: string) = printfn $"build: {text}"

// Processes. A signal is passed on, so that a test or a demo can clean up what it made, and then ends the build.

[<DllImport("libc", EntryPoint = "kill")>]
extern int private sendSignal(int pid, int signal)

let mutable private child: Process option = None
let mutable private interrupted = false

let private passOn (context: PosixSignalContext) =
    context.Cancel <- true
    interrupted <- true
    child |> Option.iter (fun running -> sendSignal (running.Id, 15) |> ignore) // SIGTERM

let private signals =
    [ for signal in [ PosixSignal.SIGINT; PosixSignal.SIGTERM; PosixSignal.SIGHUP ] do
          PosixSignalRegistration.Create(signal, Action<_> passOn) ]

/// Runs a program in the repository's root, with our standard streams, and returns its exit code.
let exitCodeOf (program: string) (arguments: string list) =
    use running =
        Process.Start(ProcessStartInfo(program, arguments, WorkingDirectory = root))

    child <- Some running
    running.WaitForExit()
    child <- None

    if interrupted then
        failwith "interrupted"

    running.ExitCode

let run program arguments =
    match exitCodeOf program arguments with
    | 0 -> ()
    | code ->
        let line = String.concat " " (Path.GetFileName(program: string) :: arguments)
        failwith $"`{line}` failed with exit code {code}"

let dotnet arguments =
    run Environment.ProcessPath (arguments: string list)

// Debian packages.

let onPath (program: string) =
    $"""{Environment.GetEnvironmentVariable "PATH"}:/usr/sbin:/sbin""".Split ':'
    |> Array.exists (fun folder -> File.Exists(folder </> program))

/// Installs each package whose probe returns false.
let install (needs: ((unit -> bool) * string) list) =
    let missing =
        [ for isThere, package in needs do
              if not (isThere ()) then
                  package ]

    let names = String.concat " " missing

    if not missing.IsEmpty then
        if not (Environment.IsPrivilegedProcess && onPath "apt-get") then
            failwith $"missing: {names}. Install them, on Debian by `sudo apt-get install {names}`, and run this again."

        say $"installing with apt: {names}"
        Environment.SetEnvironmentVariable("DEBIAN_FRONTEND", "noninteractive")
        run "apt-get" [ "update"; "-qq" ]
        run "apt-get" ([ "install"; "-y"; "-qq"; "--no-install-recommends" ] @ missing)

let program name package = (fun () -> onPath name), package

let installCompiler () =
    install
        [ program "autoreconf" "autoconf"
          program "automake" "automake"
          program "libtoolize" "libtool"
          program "make" "make"
          program "gcc" "gcc"
          (fun () -> File.Exists "/usr/include/stdio.h"), "libc6-dev"
          (fun () -> File.Exists "/etc/ssl/certs/ca-certificates.crt"), "ca-certificates" ]

let installLab () =
    install
        [ program "ip" "iproute2"
          program "ethtool" "ethtool"
          program "ping" "iputils-ping"
          program "iptables" "iptables"
          program "sysctl" "procps"
          program "useradd" "passwd"
          program "traceroute" "traceroute"
          program "nft" "nftables" ]

/// Programs that judge what ours write: captures, key logs, manual pages and completions. Without them tests are skipped, so a
/// failed installation does not stop the build.
let installOracles () =
    if Environment.IsPrivilegedProcess then
        install
            [ program "tshark" "tshark"
              program "man" "man-db"
              program "mandoc" "mandoc"
              program "zsh" "zsh"
              program "fish" "fish" ]

// wolfSSL: the one named by LIGHTWAY_WOLFSSL, else the system's, else our own build in artifacts/native.

let nativeFolder = artifacts </> "native"

let exportsDtls13 (library: string) =
    match NativeLibrary.TryLoad library with
    | false, _ -> false
    | true, handle ->
        let found, _ = NativeLibrary.TryGetExport(handle, "wolfDTLSv1_3_server_method")
        NativeLibrary.Free handle
        found

/// What the build of the library depends on; when it has not changed, the library is not built again.
let nativeStamp () =
    [ "wolfssl.pin"; "wolfssl.flags"; "build.sh" ]
    |> List.map (fun file -> File.ReadAllText(root </> "native" </> file))
    |> String.concat "\000"
    |> Encoding.UTF8.GetBytes
    |> SHA256.HashData
    |> Convert.ToHexStringLower

let buildNative () =
    let library = nativeFolder </> "libwolfssl.so"
    let stampFile = nativeFolder </> "stamp"
    let isCurrent = File.Exists stampFile && File.ReadAllText stampFile = nativeStamp ()

    if isCurrent && exportsDtls13 library then
        say $"""wolfSSL {File.ReadAllText(nativeFolder </> "version").Trim()} is built already"""
    else
        installCompiler ()
        Shell.cleanDir nativeFolder
        run "bash" [ root </> "native" </> "build.sh"; nativeFolder ]

        if not (exportsDtls13 library) then
            failwith $"{library} was built without DTLS 1.3: see {nativeFolder}/build.log"

        File.WriteAllText(stampFile, nativeStamp ())

    Environment.SetEnvironmentVariable("LIGHTWAY_WOLFSSL", library)

let native () =
    match Environment.GetEnvironmentVariable "LIGHTWAY_WOLFSSL" with
    | path when not (String.IsNullOrEmpty path) ->
        if not (File.Exists path) then
            failwith
                $"LIGHTWAY_WOLFSSL names {path}, which does not exist. Correct it, or unset it to have wolfSSL built."

        if not (exportsDtls13 path) then
            failwith
                $"LIGHTWAY_WOLFSSL names {path}, which is not wolfSSL with DTLS 1.3. Unset it to have wolfSSL built."

        say $"wolfSSL is {path}, as LIGHTWAY_WOLFSSL says"
    | _ when exportsDtls13 "libwolfssl.so" -> say "wolfSSL is the system's"
    | _ -> buildNative ()

// Code.

let fsharpSources =
    [ "segmenter"; "protocol"; "options"; "specs"; "tests"; "lab"; "bench"; "build.fsx" ]

let csharpSources = [ "tunnel"; "hosting"; "server"; "client"; "samples" ]

let format isCheck =
    let option = if isCheck then [ "--check" ] else []
    dotnet [ "tool"; "restore" ]
    dotnet ([ "fantomas" ] @ option @ fsharpSources)
    dotnet ([ "csharpier"; (if isCheck then "check" else "format") ] @ csharpSources)

let build () =
    dotnet [ "restore"; "Lightway.slnx"; "--locked-mode" ]
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

let runSuite name (extra: string list) =
    let summary = artifacts </> $"{name}.summary"
    File.Delete summary
    let code = exitCodeOf (executable name) ([ "--summary"; summary ] @ extra)

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

    target "Fuzz" "60 s of hostile bytes for every parser; --seconds N" (fun () -> runSuite "Lightway.Fuzz" fuzzing)

    target "Mutate" "Break the pure core in one point after the other: a law must notice" (fun () ->
        dotnet ([ "fsi"; root </> "specs" </> "mutate.fsx" ] @ extra))

    target "Test" "Specs, fuzzing, tests and end-to-end tests; root" (fun () ->
        installLab ()
        runSuite "Lightway.Tests" extra

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

    target "Micro" "Nanoseconds per segment, step by step" (fun () -> run bench ("micro" :: extra))
    target "Publish" "Server and client, ready to copy, in artifacts/publish" publish
    target "Pack" "Packages of the pure core, for other programs, in artifacts/packages" pack
    target "Clean" "Remove artifacts" (fun () -> Shell.deleteDir artifacts)

    for dependency in [ "Native"; "Build"; "CheckFormat"; "Specs"; "Fuzz" ] do
        dependency ==> "Test" |> ignore

    for onRequest in [ "Demo"; "Bench"; "Pests"; "Micro"; "Publish" ] do
        "Native" ==> onRequest |> ignore
        "Build" ==> onRequest |> ignore

    for onBuild in [ "Specs"; "Fuzz"; "Pack" ] do
        "Build" ==> onBuild |> ignore

    "Native" ?=> "Build" ?=> "CheckFormat" ?=> "Specs" ?=> "Fuzz" |> ignore

let private needsRoot = [ "Test"; "Demo"; "Bench"; "Pests" ]

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

    if interrupted then 130
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

/// How the build runs programs, and installs those that it needs.
module Steps

#r "nuget: System.Reactive, 5.0.0" // what FAKE asks for is gone from the feed; naming its successor avoids a warning
#r "nuget: Fake.Core.Target, 5.20.3"
#r "nuget: Fake.IO.FileSystem, 5.20.3"

open System
open System.Diagnostics
open System.IO
open System.Runtime.InteropServices
open Fake.IO.FileSystemOperators

let root = Path.GetDirectoryName __SOURCE_DIRECTORY__
let artifacts = root </> "artifacts"
let say (text: string) = printfn $"build: {text}"

// Processes. A signal is passed on, so that a test or a demo can clean up what it made, and then ends the build.

[<DllImport("libc", EntryPoint = "kill")>]
extern int private sendSignal(int pid, int signal)

let mutable private children: Process list = []
let mutable private wasInterrupted = false

/// A signal has ended the build.
let interrupted () = wasInterrupted

let private passOn (context: PosixSignalContext) =
    context.Cancel <- true
    wasInterrupted <- true

    for running in children do
        sendSignal (running.Id, 15) |> ignore // SIGTERM

let private signals =
    [ for signal in [ PosixSignal.SIGINT; PosixSignal.SIGTERM; PosixSignal.SIGHUP ] do
          PosixSignalRegistration.Create(signal, Action<_> passOn) ]

/// Runs a program in the repository's root once for each list of arguments, all at the same time, with our standard streams, and
/// returns the exit codes.
let exitCodesOf (program: string) (lists: string list list) : int list =
    children <-
        [ for arguments in lists -> Process.Start(ProcessStartInfo(program, arguments, WorkingDirectory = root)) ]

    let codes =
        [ for running in children do
              running.WaitForExit()
              running.ExitCode ]

    for running in children do
        running.Dispose()

    children <- []

    if wasInterrupted then
        failwith "interrupted"

    codes

/// Runs a program in the repository's root, with our standard streams, and returns its exit code.
let exitCodeOf (program: string) (arguments: string list) : int =
    List.head (exitCodesOf program [ arguments ])

let run program arguments =
    match exitCodeOf program arguments with
    | 0 -> ()
    | code ->
        let line = String.concat " " (Path.GetFileName(program: string) :: arguments)
        failwith $"`{line}` failed with exit code {code}"

let dotnet arguments =
    run Environment.ProcessPath (arguments: string list)

/// Again after a pause, up to three times in all: a mirror may not answer, and another program may have the lock.
let private again (what: string) (action: unit -> unit) =
    let rec attempt (left: int) =
        let failure =
            try
                action ()
                None
            with error when left > 1 && not wasInterrupted ->
                Some error

        match failure with
        | None -> ()
        | Some error ->
            say $"{what}: {error.Message}; again in 20 s"
            Threading.Thread.Sleep 20_000

            if wasInterrupted then
                failwith "interrupted"

            attempt (left - 1)

    attempt 3

/// For what downloads packages.
let dotnetOnline arguments =
    again "dotnet" (fun () -> dotnet arguments)

// Debian packages.

let onPath (program: string) =
    $"""{Environment.GetEnvironmentVariable "PATH"}:/usr/sbin:/sbin""".Split ':'
    |> Array.exists (fun folder -> File.Exists(folder </> program))

let private aptPatience =
    [ "-o"; "Acquire::Retries=3"; "-o"; "DPkg::Lock::Timeout=120" ]

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

        // A machine that has just started may be updating itself. With part of the lists apt-get update succeeds too, so
        // both are done again.
        again "apt-get" (fun () ->
            run "apt-get" (aptPatience @ [ "update"; "-qq" ])
            run "apt-get" (aptPatience @ [ "install"; "-y"; "-qq"; "--no-install-recommends" ] @ missing))

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
          program "nft" "nftables"
          program "setpriv" "util-linux"
          program "systemd-analyze" "systemd"

          if RuntimeInformation.ProcessArchitecture = Architecture.X64 then
              (fun () -> fst (NativeLibrary.TryLoad "libIPSec_MB.so.1")), "libipsec-mb1" ]

/// What looks at the server in the tests of monitoring. Without it these are skipped, so a failed installation does not stop
/// the others.
let installMonitors () =
    if Environment.IsPrivilegedProcess then
        try
            install
                [ program "promtool" "prometheus"
                  program "chromium" "chromium"
                  program "chromedriver" "chromium-driver" ]
        with error ->
            say $"tests of the metrics endpoint and the status page will be skipped: {error.Message}"

/// Debian packages that tests use without installing them, as that would change this machine's DNS: unpacked in
/// artifacts/debian. Without them, and without dbus-daemon, two tests are skipped.
let unpackLab () =
    let folder = artifacts </> "debian"
    Directory.CreateDirectory folder |> ignore // dpkg-deb makes the last folder of a path only

    try
        install [ program "dbus-daemon" "dbus-daemon" ]
    with error ->
        say $"{error.Message}"

    for package in [ "openresolv"; "systemd-resolved"; "libsystemd-shared" ] do
        if not (Directory.Exists(folder </> package)) && onPath "apt-get" && onPath "dpkg-deb" then
            try
                let download = Directory.CreateTempSubdirectory("lightway-debian").FullName

                let apt = "apt-get " + String.concat " " aptPatience

                let fetch =
                    $"cd $0 && ({apt} download -qq $1 || ({apt} update -qq && {apt} download -qq $1))"

                again package (fun () -> run "sh" [ "-c"; fetch; download; package ])

                for file in Directory.GetFiles(download, "*.deb") do
                    run "dpkg-deb" [ "-x"; file; folder </> package ]

                Directory.Delete(download, recursive = true)
            with error ->
                say $"{package}: {error.Message}"

/// Programs that judge what ours write: captures, key logs, manual pages and completions; and what they compute, for all inputs.
/// Without them tests are skipped, so a failed installation does not stop the build.
let installOracles () =
    if Environment.IsPrivilegedProcess then
        install
            [ program "tshark" "tshark"
              program "man" "man-db"
              program "mandoc" "mandoc"
              program "zsh" "zsh"
              program "fish" "fish"
              program "z3" "z3" ]

/// The solver that decides the laws of specs/proofs.
let installProver () = install [ program "z3" "z3" ]

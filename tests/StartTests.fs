/// What the two programs do before they serve: whom they trust, what they refuse and warn about, what they let others see.
module Lightway.Tests.StartTests

open System
open System.IO
open System.Net
open System.Security.Cryptography
open System.Security.Cryptography.X509Certificates
open Expecto
open Lightway.Lab
open Lightway.Options
open Lightway.Server.Setup
open Lightway.Tunnel.Tls
open Lightway.Tests.Checks

/// Runs `body` with a set-up that `init` wrote.
let private withSetUp = SetUps.withPort 27690

/// Exit code and output of a server that is started on a set-up and cannot serve.
let private startServer (directory: string) =
    let struct (code, output, error) =
        Shell.tryRun (Programs.OfThisBuild().Server) [ "--config-file"; Path.Combine(directory, "server.yaml") ]

    code, output + error

let private replace directory name (text: string) =
    File.WriteAllText(Path.Combine(directory, name), text)

let private text directory name =
    File.ReadAllText(Path.Combine(directory, name))

/// The file of the wolfSSL that this test program has loaded.
let private wolfSsl () =
    let line = WolfSslLibrary.EnsureUsable()
    let file = line.Substring(line.IndexOf '(' + 1).TrimEnd ')'

    if File.Exists file then
        file
    else
        skiptest $"{file} is not a path"

/// The server's program in a folder of its own, started without LIGHTWAY_WOLFSSL. It ends after it has loaded wolfSSL,
/// because its key does not belong to its certificate.
let private startCopy (prepare: string -> unit) : string =
    let mutable found = ""

    withSetUp (fun directory ->
        let root = Path.GetDirectoryName directory
        let target = Path.Combine(root, "deep", "program")
        Directory.CreateDirectory target |> ignore
        let source = Programs.OfThisBuild().Server
        Shell.run "cp" [ "-r"; Path.GetDirectoryName source + "/."; target ] |> ignore
        prepare root
        replace directory "server.crt" (text directory "ca_cert.crt")

        let struct (_, output, error) =
            Shell.tryRun
                "env"
                [ "-u"
                  "LIGHTWAY_WOLFSSL"
                  Path.Combine(target, Path.GetFileName source)
                  "--config-file"
                  Path.Combine(directory, "server.yaml") ]

        let log = output + error
        Expect.stringContains log "wolfSSL" "it came as far as that"
        found <- log.Replace(root, "ROOT"))

    found

let private library =
    testList
        "wolfSSL"
        [ test "a library in artifacts/native of a folder above the program is not loaded" {
              let folder root =
                  Directory.CreateDirectory(Path.Combine(root, "artifacts", "native")).FullName

              let log =
                  startCopy (fun root -> File.Copy(wolfSsl (), Path.Combine(folder root, "libwolfssl.so")))

              Expect.isFalse (log.Contains "ROOT/deep/artifacts" || log.Contains "ROOT/artifacts") log
          }

          test "the library next to the program is loaded" {
              let log =
                  startCopy (fun root -> File.Copy(wolfSsl (), Path.Combine(root, "deep", "program", "libwolfssl.so")))

              Expect.stringContains log "(ROOT/deep/program/libwolfssl.so)" ""
          } ]

let private day = DateTimeOffset.UtcNow

/// A certificate for a P-256 key, and the key. `authority`: Some n for an authority with that pathlen.
let private issue (name: string) (authority: int option) (days: float) (issuer: (X509Certificate2 * ECDsa) option) =
    let key = ECDsa.Create ECCurve.NamedCurves.nistP256
    let request = CertificateRequest($"CN={name}", key, HashAlgorithmName.SHA256)

    request.CertificateExtensions.Add(
        X509BasicConstraintsExtension(authority.IsSome, authority.IsSome, Option.defaultValue 0 authority, true)
    )

    let from, until = day.AddDays -400., day.AddDays days

    let certificate =
        match issuer with
        | None -> request.CreateSelfSigned(from, until)
        | Some(above, aboveKey) ->
            request.Create(
                above.SubjectName,
                X509SignatureGenerator.CreateForECDsa aboveKey,
                from,
                until,
                [| 1uy; byte name.Length |]
            )

    certificate, key

let private pem (certificate: X509Certificate2) =
    certificate.ExportCertificatePem() + "\n"

let private ed25519Key =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIFaw1Tn0NZQ7FQhHhsnelyDgFIN5hrqUT6M7Sl1ELWQc\n-----END PRIVATE KEY-----\n"

let private ed25519Certificate =
    "-----BEGIN CERTIFICATE-----\nMIIBSDCB+6ADAgECAhR+tjDwPlvOLw9v5yyJnHZTjZ6RQzAFBgMrZXAwGTEXMBUG\nA1UEAwwOZWQuZXhhbXBsZS5jb20wIBcNMjYxMTI1MjIzMDE2WhgPMjEyNjExMDEy\nMjMwMTZaMBkxFzAVBgNVBAMMDmVkLmV4YW1wbGUuY29tMCowBQYDK2VwAyEA7Aux\nrrpKBmvzVxDzcy8Eldz+JTXRR5JDa6ZYjfOPa8yjUzBRMB0GA1UdDgQWBBSo4mzU\nqDBXfI5yE1BSxqnwt5vI+zAfBgNVHSMEGDAWgBSo4mzUqDBXfI5yE1BSxqnwt5vI\n+zAPBgNVHRMBAf8EBTADAQH/MAUGAytlcANBAJEvWXWEYBic2JelIkngZ/UJKLgR\nCXthCvsttTY3euYeKiwd2ydkJMa1qXWpx1FZC0kAWYmJaXFagM66MmCPbAc=\n-----END CERTIFICATE-----\n"

let private certificates =
    testList
        "Certificates"
        [ test "a chain that begins with the authority is refused: the server's own certificate comes first" {
              withSetUp (fun directory ->
                  let own, authority = text directory "server.crt", text directory "ca_cert.crt"
                  replace directory "server.crt" (authority + own)
                  let code, log = startServer directory
                  Expect.equal code 2 "exit code"
                  Expect.stringContains log "server_cert: " "which option"
                  Expect.stringContains log "the first certificate must be the server's own" "what is wrong"
                  Expect.stringContains log "CN=Lightway CA" "which one it is")
          }

          test "an Ed25519 key is refused by name, with the command that makes another" {
              withSetUp (fun directory ->
                  replace directory "server.key" ed25519Key
                  let code, log = startServer directory
                  Expect.equal code 2 "exit code"
                  Expect.stringContains log "server_key: " "which option"
                  Expect.stringContains log "an Ed25519 key" "what it is"
                  Expect.stringContains log "run: openssl genpkey -algorithm EC" "the remedy")
          }

          test "a certificate with an Ed25519 key is refused by name" {
              withSetUp (fun directory ->
                  replace directory "server.crt" ed25519Certificate
                  let code, log = startServer directory
                  Expect.equal code 2 "exit code"
                  Expect.stringContains log "server_cert: " "which option"
                  Expect.stringContains log "CN=ed.example.com" "which certificate"
                  Expect.stringContains log "Ed25519" "what it has")
          }

          for days, expected in [ -3., Some "has expired"; 10., Some "expires in 9 days"; 31., None ] do
              test $"a certificate that ends in {days} days: the log says {expected}" {
                  withSetUp (fun directory ->
                      let root = issue "root" (Some 1) 1000. None
                      let leaf, _ = issue "leaf" None days (Some root)
                      replace directory "server.crt" (pem leaf + pem (fst root)) // with a key that is not its own
                      let code, log = startServer directory
                      Expect.equal code 2 "exit code"

                      match expected with
                      | Some words ->
                          Expect.stringContains log "server_cert: " "which option"
                          Expect.stringContains log $"CN=leaf {words}" "which certificate"
                      | None -> Expect.isFalse (log.Contains "expire") log)
              }

          test "an intermediate authority below one that allows none is warned about, as clients refuse the chain" {
              withSetUp (fun directory ->
                  for pathlen, isWarned in [ 0, true; 1, false ] do
                      let root = issue "root" (Some pathlen) 1000. None
                      let middle = issue "middle" (Some 0) 1000. (Some root)
                      let leaf, _ = issue "leaf" None 1000. (Some middle)

                      // The authority is in the chain, or lies beside it where init puts it.
                      for chain, beside in
                          [ pem leaf + pem (fst middle) + pem (fst root), ""
                            pem leaf + pem (fst middle), pem (fst root) ] do
                          replace directory "server.crt" chain
                          replace directory "ca_cert.crt" beside
                          let _, log = startServer directory

                          let warning =
                              "CN=root allows no authority below it (pathlen 0), but CN=middle is one"

                          Expect.equal (log.Contains warning) isWarned log)
          } ]

/// Whether a process of the same user without CAP_SYS_PTRACE may open the memory of `child` (proc_pid_mem(5)).
let private isReadable (child: Child) =
    let struct (code, _, _) =
        Shell.tryRun
            "setpriv"
            [ "--bounding-set=-sys_ptrace"
              "--inh-caps=-sys_ptrace"
              "sh"
              "-c"
              $"exec 3< /proc/{child.Pid}/mem" ]

    code = 0

let private coreLimit (child: Child) =
    File.ReadAllLines $"/proc/{child.Pid}/limits"
    |> Array.find _.StartsWith("Max core file size")
    |> _.Split(' ', StringSplitOptions.RemoveEmptyEntries)
    |> fun fields -> fields[4]

let private coreDumps =
    [ for program in [ "server"; "client" ] do
          for allowed in [ false; true ] do
              test $"{program}, core_dumps: {allowed}: memory can be read and dumped only if the option allows it" {
                  needsRoot ()
                  use topology = Topology.Create()

                  let keys = if allowed then [ "core_dumps", "true" ] else []

                  let settings: Settings =
                      { Expresslane = true
                        Offload = true
                        ServerKeys = keys
                        ClientKeys = keys }

                  let programs = Programs.OfThisBuild()
                  use vpn = new Vpn(topology, programs, settings)

                  let netns, path =
                      if program = "server" then
                          topology.Server, programs.Server
                      else
                          topology.Client, programs.Client

                  let arguments =
                      [ "--core=unlimited"
                        "setpriv"
                        "--bounding-set=-sys_ptrace"
                        "--inh-caps=-sys_ptrace"
                        path
                        "--config-file"
                        Path.Combine(vpn.Folder, $"{program}.yaml") ]

                  use child =
                      Child.Start netns program "prlimit" arguments (Path.Combine(vpn.Folder, "start.log"))

                  // The client has no server to reach: it tries for some seconds.
                  child.Await (TimeSpan.FromSeconds 60.) "it has read its options" (fun () ->
                      child.Log.Contains "wolfSSL")

                  Expect.equal (coreLimit child) (if allowed then "unlimited" else "0") "RLIMIT_CORE"
                  Expect.equal (isReadable child) allowed "memory"
              } ]

let private machine =
    [ test "a machine without OpenSSL: one line says what to install, instead of an abort" {
          needsRoot ()

          withSetUp (fun directory ->
              let hide =
                  "for f in $(ldconfig -p | sed -n 's/.*libssl.so[^ ]* .*=> //p'); do mount --bind /dev/null $f; done; exec \"$@\""

              for arguments in
                  [ [ "--config-file"; Path.Combine(directory, "server.yaml") ]
                    [ "init"; directory + "-new"; "--address"; "192.0.2.1:1" ] ] do
                  let struct (code, output, error) =
                      Shell.tryRun
                          "unshare"
                          ([ "--mount"; "sh"; "-c"; hide; "sh"; Programs.OfThisBuild().Server ] @ arguments)

                  Expect.equal code 1 (output + error)
                  Expect.stringContains error "libssl" "what is missing"
                  Expect.stringContains error "apt-get install libssl3" "the remedy")
      }

      test "init without --address says that its client.yaml is for this machine only" {
          let parent = Directory.CreateTempSubdirectory "lightway-tests-"

          try
              let init name arguments =
                  Shell.run
                      (Programs.OfThisBuild().Server)
                      ([ "init"; Path.Combine(parent.FullName, name) ] @ arguments)

              let warning = "127.0.0.1:27690, which reaches the server from this machine only"
              let output = init "one" []
              Expect.stringContains output warning "without an address"
              Expect.stringContains output "--address" "the remedy"
              Expect.isFalse ((init "two" [ "--address"; "192.0.2.1:27690" ]).Contains warning) "with an address"
          finally
              parent.Delete true
      } ]

let tests: Test =
    testSequenced (
        testList "Start" [ library; certificates; testList "Core dumps" coreDumps; testList "Machine" machine ]
    )

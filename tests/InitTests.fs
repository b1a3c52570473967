/// `lightway-server init`, in directories of their own under the temporary one.
module Lightway.Tests.InitTests

open System
open System.IO
open System.Net
open System.Security.Cryptography
open System.Security.Cryptography.X509Certificates
open System.Text
open Expecto
open Lightway.Hosting
open Lightway.Server
open Lightway.Server.Auth
open Lightway.Server.Setup
open Lightway.Tunnel.Kernel
open Lightway.Options

let private options directory : InitOptions =
    { Directory = directory
      ServerHost = "vpn.example.com"
      ServerPort = 4433
      IsAddressGiven = true
      User = "me \"#1\" \\"
      ServerName = "gateway.example.com"
      IpPool = IPNetwork.Parse "10.7.0.0/20" }

/// Runs `body` with a directory that is gone afterwards. Its parents pass the checks: the temporary one is sticky.
let private withDirectory (body: string -> unit) =
    let directory = Directory.CreateTempSubdirectory "lightway-tests-"

    try
        body directory.FullName
    finally
        directory.Delete true

let private init (options: InitOptions) =
    use output = new StringWriter()
    use error = new StringWriter()
    let code = Init.Run(options, output, error)
    code, string output, string error

let private modeOf (path: string) =
    Convert.ToString(int (File.GetUnixFileMode path), 8)

let private withSetUp (body: string -> unit) =
    withDirectory (fun parent ->
        let directory = Path.Combine(parent, "new")
        let code, _, error = init (options directory)
        Expect.equal (code, error) (0, "") "written"
        body directory)

let private noVariables = Func<string, string>(fun _ -> null)

let private serverOptions directory =
    let outcome =
        ServerOptions.Parse(
            [| "-c"; Path.Combine(directory, "server.yaml") |],
            noVariables,
            Func<_, _> File.ReadAllText
        )

    Expect.equal outcome.Kind OutcomeKind.Run "server.yaml is accepted"
    Expect.isEmpty outcome.Warnings "without a warning"
    outcome.Options

let private clientOptions directory =
    let outcome =
        ClientOptions.Parse(
            [| "-c"; Path.Combine(directory, "client.yaml") |],
            noVariables,
            Func<_, _> File.ReadAllText
        )

    Expect.equal outcome.Kind OutcomeKind.Run "client.yaml is accepted"
    Expect.isEmpty outcome.Warnings "without a warning"
    outcome.Options

let private setUp =
    testList
        "Set-up"
        [ test "files and directory have modes that keep secrets" {
              withSetUp (fun directory ->
                  let modes =
                      [ for file in Directory.GetFiles directory -> Path.GetFileName file, modeOf file ]

                  Expect.equal
                      (Map modes)
                      (Map
                          [ "ca_cert.crt", "644"
                            "ca.key", "600"
                            "server.crt", "644"
                            "server.key", "600"
                            "users.htpasswd", "600"
                            "server.yaml", "600"
                            "client.yaml", "600" ])
                      ""

                  Expect.equal (modeOf directory) "700" "")
          }

          test "the server starts on it: options, file checks, users" {
              withSetUp (fun directory ->
                  let options = serverOptions directory
                  Expect.equal options.Mode TransportMode.Udp ""
                  Expect.equal options.BindAddress (IPEndPoint(IPAddress.Any, 4433)) ""
                  Expect.equal (string options.IpPool) "10.7.0.0/20" ""
                  Expect.equal (string options.LightwayClientIp) "10.7.0.5" ""
                  Expect.isTrue (options.EnableExpresslane && options.Offload.EnableTunOffload) ""
                  ServerFiles.Require options
                  Expect.equal (Authenticator.Load(options.UserDb, 1)).UserCount 1 "")
          }

          test "the client is let in: its password is the one in the user file, and nothing near it" {
              withSetUp (fun directory ->
                  let client = clientOptions directory
                  let auth = Authenticator.Load((serverOptions directory).UserDb, 1)
                  Expect.equal client.User "me \"#1\" \\" "the name survives YAML"
                  Expect.equal client.Password.Length 24 ""
                  Expect.isTrue (auth.Authorize(client.User, ReadOnlySpan(Encoding.UTF8.GetBytes client.Password))) ""

                  Expect.isFalse
                      (auth.Authorize(
                          client.User,
                          ReadOnlySpan(Encoding.UTF8.GetBytes(client.Password.ToLowerInvariant() + "x"))
                      ))
                      ""

                  Expect.equal (client.ServerHost, client.ServerPort) ("vpn.example.com", 4433) "")
          }

          test "the server's certificate is signed by the client's authority, for the client's name, for a server" {
              withSetUp (fun directory ->
                  let client = clientOptions directory
                  let server = serverOptions directory
                  use ca = X509CertificateLoader.LoadCertificateFromFile client.CaCert
                  use leaf = X509CertificateLoader.LoadCertificateFromFile server.ServerCert
                  use chain = new X509Chain()
                  chain.ChainPolicy.TrustMode <- X509ChainTrustMode.CustomRootTrust
                  chain.ChainPolicy.CustomTrustStore.Add ca |> ignore
                  chain.ChainPolicy.RevocationMode <- X509RevocationMode.NoCheck
                  chain.ChainPolicy.ApplicationPolicy.Add(Oid "1.3.6.1.5.5.7.3.1") |> ignore
                  Expect.isTrue (chain.Build leaf) "the chain is valid for server authentication"
                  Expect.isTrue (leaf.MatchesHostname client.ServerDn) "the name"
                  Expect.isFalse (leaf.MatchesHostname "other.example.com") "no other name"
                  Expect.isLessThanOrEqual (leaf.NotAfter - leaf.NotBefore).TotalDays 825. "life"
                  use both = X509Certificate2.CreateFromPemFile(server.ServerCert, server.ServerKey) // raises on another's key
                  Expect.isTrue both.HasPrivateKey "")
          }

          test "two set-ups share no secret" {
              withSetUp (fun one ->
                  withSetUp (fun two ->
                      for file in [ "ca.key"; "server.key"; "users.htpasswd" ] do
                          let read directory =
                              File.ReadAllText(Path.Combine(directory, file))

                          Expect.notEqual (read one) (read two) file

                      Expect.notEqual (clientOptions one).Password (clientOptions two).Password ""))
          }

          test "an IPv6 server is bound and named as such" {
              withDirectory (fun directory ->
                  let code, _, _ =
                      init
                          { options directory with
                              ServerHost = "2001:db8::1" }

                  Expect.equal code 0 "an empty directory is written to"
                  Expect.equal (modeOf directory) "700" ""
                  Expect.equal (serverOptions directory).BindAddress (IPEndPoint(IPAddress.IPv6Any, 4433)) ""
                  Expect.equal (clientOptions directory).ServerHost "2001:db8::1" "")
          }

          test "it says what it wrote and what to run next" {
              withDirectory (fun parent ->
                  let directory = Path.Combine(parent, "new")
                  let _, output, _ = init (options directory)

                  for part in
                      [ "users.htpasswd"
                        $"lightway-server --config-file {directory}/server.yaml"
                        $"lightway-client --config-file {directory}/client.yaml" ] do
                      Expect.stringContains output part "")
          }

          test "a directory that holds anything, or a file, is left alone" {
              withDirectory (fun directory ->
                  let kept = Path.Combine(directory, "kept")
                  File.WriteAllText(kept, "mine")

                  for target in [ directory; kept ] do
                      let code, output, error = init (options target)
                      Expect.equal (code, output) (2, "") ""
                      Expect.stringContains error target ""

                  Expect.equal (Directory.GetFileSystemEntries directory) [| kept |] ""
                  Expect.equal (File.ReadAllText kept) "mine" "")
          }

          test "a directory that cannot be made is one clear error" {
              let code, _, error = init (options "/proc/lightway/new")
              Expect.equal code 2 ""
              Expect.stringContains error "/proc/lightway/new" ""
              Expect.equal (error.TrimEnd().Split('\n').Length) 1 ""
          } ]

let tests: Test = testList "Init" [ setUp ]

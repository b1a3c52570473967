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
open Lightway.Lab
open Lightway.Server
open Lightway.Server.Auth
open Lightway.Server.Host
open Lightway.Server.Setup
open Lightway.Tunnel.Kernel
open Lightway.Options
open Lightway.Lab
open Lightway.Tests.Checks

let private options directory : InitOptions =
    { SetUps.options directory "vpn.example.com" 4433 with
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

          test "in a directory with the set-group-ID bit, what the server reads is for the directory's group" {
              needsRoot ()

              withDirectory (fun parent ->
                  let directory = Directory.CreateDirectory(Path.Combine(parent, "new")).FullName
                  Shell.run "chown" [ "0:4321"; directory ] |> ignore
                  Shell.run "chmod" [ "2750"; directory ] |> ignore
                  let code, output, error = init (options directory)
                  Expect.equal (code, error) (0, "") "written"

                  let status =
                      Shell.run "sh" [ "-c"; "cd \"$0\"; stat -c '%n %g %a' . * | LC_ALL=C sort"; directory ]

                  Expect.equal
                      (List.ofArray (status.Trim().Split '\n'))
                      [ ". 4321 2750"
                        "ca.key 4321 600"
                        "ca_cert.crt 4321 644"
                        "client.yaml 4321 600"
                        "server.crt 4321 644"
                        "server.key 4321 640"
                        "server.yaml 4321 640"
                        "users.htpasswd 4321 640" ]
                      ""

                  Expect.stringContains output "0640 server.key" "said")
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

/// A certificate of the operator's own: that of another set-up.
let private withCertificate (body: string -> InitOptions -> unit) =
    withSetUp (fun other ->
        withDirectory (fun parent ->
            body
                other
                { options (Path.Combine(parent, "new")) with
                    Certificate = Path.Combine(other, "server.crt")
                    Key = Path.Combine(other, "server.key") }))

let private existing =
    testList
        "Existing certificate"
        [ test "it stays where it is, and the server starts on it" {
              withCertificate (fun other options ->
                  Expect.equal (init options |> fun (code, _, error) -> code, error) (0, "") "written"
                  let server = serverOptions options.Directory

                  Expect.equal
                      (server.ServerCert, server.ServerKey)
                      (Path.Combine(other, "server.crt"), Path.Combine(other, "server.key"))
                      "the paths"

                  ServerFiles.Require server

                  Expect.equal
                      (Directory.GetFiles options.Directory |> Array.map Path.GetFileName |> Array.sort)
                      [| "client.yaml"; "server.yaml"; "users.htpasswd" |]
                      "no authority, no copies"

                  let client = clientOptions options.Directory
                  Expect.equal client.CaCert "/etc/ssl/certs/ca-certificates.crt" "the authorities of the system"
                  Expect.equal client.ServerDn "gateway.example.com" "the name")
          }

          test "one that the server would refuse, or clients, is refused, and nothing is written" {
              withCertificate (fun other options ->
                  let refused (options: InitOptions) (words: string list) =
                      let code, output, error = init options
                      Expect.equal (code, output) (2, "") error
                      Expect.equal (error.TrimEnd().Split('\n').Length) 1 "one line"

                      for word in words do
                          Expect.stringContains error word "the reason"

                      Expect.isFalse (Directory.Exists options.Directory) "nothing is written"

                  refused
                      { options with
                          ServerName = "other.example.com" }
                      [ "gateway.example.com"; "--server-name" ]

                  refused
                      { options with
                          Certificate = "/nowhere.crt" }
                      [ "/nowhere.crt" ]

                  refused
                      { options with
                          Key = Path.Combine(other, "ca.key") }
                      [ "ca.key" ]

                  refused
                      { options with
                          Key = Path.Combine(other, "users.htpasswd") }
                      [ "users.htpasswd" ]

                  File.SetUnixFileMode(options.Key, enum<UnixFileMode> 0o644)
                  refused options [ "chmod 600" ])
          }

          test "certbot is named if it is missing, and so is a directory that is not there" {
              withDirectory (fun parent ->
                  let asked =
                      { options (Path.Combine(parent, "new")) with
                          AcmeWebroot = parent }

                  let _, _, error =
                      init
                          { asked with
                              AcmeWebroot = "/nowhere/www" }

                  Expect.stringContains error "/nowhere/www" "the directory"

                  if isNull (HostPrograms.Find "certbot") then
                      let code, _, error = init asked
                      Expect.equal code 2 ""

                      for word in [ "apt-get install certbot"; "--certificate FILE" ] do
                          Expect.stringContains error word "the remedy")
          }

          test "certbot is run for the server's name, and its certificate is used" {
              Checks.needsRoot ()

              withSetUp (fun other ->
                  withDirectory (fun parent ->
                      // What certbot leaves: links in live/NAME, which only root may enter.
                      let certbot =
                          $"""#!/bin/sh -e
test "$*" = "certonly --webroot -w {parent} -d gateway.example.com"
live=/etc/letsencrypt/live/gateway.example.com
install -d -m 700 /etc/letsencrypt/archive $live
cp {other}/server.crt /etc/letsencrypt/archive/fullchain1.pem
cp {other}/server.key /etc/letsencrypt/archive/privkey1.pem
ln -s ../../archive/fullchain1.pem $live/fullchain.pem
ln -s ../../archive/privkey1.pem $live/privkey.pem
"""

                      let script =
                          [ "set -e"
                            $"cp -a /etc {parent}/copy; mount -t tmpfs -o mode=755 tmpfs /etc; cp -a {parent}/copy/. /etc"
                            $"PATH={parent}:$PATH"
                            $"{Programs.OfThisBuild().Server} init {parent}/new --address gateway.example.com:4433 --acme-webroot {parent}"
                            $"cp {parent}/new/server.yaml {parent}/found" ]

                      File.WriteAllText(Path.Combine(parent, "certbot"), certbot)
                      Shell.run "chmod" [ "755"; Path.Combine(parent, "certbot") ] |> ignore
                      Shell.run "unshare" [ "--mount"; "sh"; "-c"; String.Join("\n", script) ] |> ignore
                      let found = File.ReadAllText(Path.Combine(parent, "found"))
                      let live = "/etc/letsencrypt/live/gateway.example.com"
                      Expect.stringContains found $"server_cert: \"{live}/fullchain.pem\"" "the certificate"
                      Expect.stringContains found $"server_key: \"{live}/privkey.pem\"" "the key"))
          }

          test "certificate and key come together, and certbot needs a name" {
              let parse (argv: string list) =
                  ServerOptions.Parse(Array.ofList ("init" :: "dir" :: argv), noVariables, Func<_, _>(fun _ -> ""))

              let refused argv word =
                  let outcome = parse argv
                  Expect.equal outcome.Kind OutcomeKind.Error "refused"
                  Expect.stringContains outcome.Text word "the reason"

              refused [ "--certificate"; "a" ] "--key"
              refused [ "--key"; "a" ] "--certificate"
              refused [ "--certificate"; "a"; "--key"; "b"; "--acme-webroot"; "c" ] "acme-webroot"
              refused [ "--acme-webroot"; "c" ] "--server-name"

              let nameOf argv = (parse argv).Init.ServerName
              let address = [ "--address"; "vpn.example.com:443" ]
              Expect.equal (nameOf address) "server.lightway.internal" "a certificate that init makes"
              Expect.equal (nameOf ([ "--acme-webroot"; "c" ] @ address)) "vpn.example.com" "one that exists"

              Expect.equal
                  (nameOf ([ "--certificate"; "a"; "--key"; "b"; "--server-name"; "x.example.com" ] @ address))
                  "x.example.com"
                  "as it is given"
          } ]

let tests: Test = testList "Init" [ setUp; existing ]

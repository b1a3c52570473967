/// The real client in a namespace whose only way out is a gateway: routes, signals, addresses, and what it says when it fails.
module Lightway.Tests.ClientEndToEndTests

open System
open System.IO
open System.Security.Cryptography
open System.Security.Cryptography.X509Certificates
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks
open Lightway.Tests.ClientSite

let private signals =
    testList
        "signals"
        [ test "SIGHUP ends a client on a terminal in order: code 0, Goodbye, no route left behind" {
              withServer (fun site ->
                  let before = site.Routes
                  let client = site.LaunchOnTerminal ""
                  site.AwaitOnline client
                  Expect.notEqual site.ServerRoute "" "there is something to remove"
                  Netns.signal site.ClientPid Netns.Signal.Hangup |> ignore
                  Expect.equal (ends client) 0 "exit code"
                  heardGoodbye site
                  expectRoutes site before)
          }

          test "SIGHUP does not end a client without a terminal, a service: it reads its files again" {
              withServer (fun site ->
                  let client = site.LaunchBehind [ "setsid" ]
                  site.AwaitOnline client
                  client.Signal Netns.Signal.Hangup

                  client.Await patience "it has read them" (fun () ->
                      client.Log.Contains "SIGHUP: the files were read")

                  staysOnline site client
                  Expect.isFalse (client.Log.Contains "wait for a restart") "nothing else has changed"

                  // A wrong file changes nothing; another password is used by the next connection.
                  site.Vpn.SetClient [ "keepalive_interval", "soon" ]
                  client.Signal Netns.Signal.Hangup

                  client.Await patience "it refuses the file" (fun () ->
                      client.Log.Contains "nothing has changed: keepalive")

                  site.Vpn.SetClient [ "keepalive_interval", "1s"; "password", "wrong" ]
                  client.Signal Netns.Signal.Hangup
                  client.Await patience "not all of it" (fun () -> client.Log.Contains "wait for a restart")
                  staysOnline site client
                  Expect.isTrue (site.Vpn.Server.Stop()) "the server ends"
                  site.Vpn.StartServer()
                  Expect.equal (ends client) 3 "the next login is refused"
                  client.AwaitLog "(Unauthorized)" "why")
          }

          test "SIGTERM ends a service in order" {
              withServer (fun site ->
                  let client = site.LaunchBehind [ "setsid" ]
                  site.AwaitOnline client
                  Expect.isTrue (client.Stop()) "SIGTERM ends it"
                  Expect.equal client.ExitCode 0 "exit code")
          }

          test "a client that was started to ignore SIGHUP, as nohup(1) does, ignores it on a terminal as well" {
              withServer (fun site ->
                  let client = site.LaunchOnTerminal "trap '' HUP;"
                  site.AwaitOnline client
                  let pid = site.ClientPid
                  Netns.signal pid Netns.Signal.Hangup |> ignore
                  Netns.signal pid Netns.Signal.Hangup |> ignore
                  Expect.isFalse (client.WaitForExit(TimeSpan.FromSeconds 1.)) "it lives"
                  staysOnline site client
                  Netns.signal pid Netns.Signal.Terminate |> ignore
                  Expect.equal (ends client) 0 "exit code")
          }

          test "SIGHUP has a server read its files again; clients stay" {
              withServer (fun site ->
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  site.Vpn.Server.Signal Netns.Signal.Hangup

                  site.Vpn.Server.Await patience "it says so" (fun () -> site.Vpn.Server.Log.Contains " reloaded: ")

                  staysOnline site site.Vpn.Client
                  Expect.isTrue (site.Vpn.Server.Stop()) "SIGTERM ends it"
                  Expect.equal site.Vpn.Server.ExitCode 0 "exit code")
          }

          test "SIGTERM ends a client that still waits for an answer, with code 0" {
              withSite settings (fun site ->
                  let before = site.Routes
                  site.Vpn.LaunchClient()

                  site.Vpn.Client.Await patience "its device is up" (fun () ->
                      site.Routes |> List.exists _.Contains($"dev {site.Vpn.Device}"))

                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
                  Expect.equal site.Vpn.Client.ExitCode 0 "exit code"
                  expectRoutes site before)
          }

          test "SIGQUIT ends both programs in order" {
              withServer (fun site ->
                  let before = site.Routes
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  site.Vpn.Client.Signal Netns.Signal.Quit
                  Expect.equal (ends site.Vpn.Client) 0 "client's exit code"
                  heardGoodbye site
                  expectRoutes site before
                  site.Vpn.Server.Signal Netns.Signal.Quit
                  Expect.equal (ends site.Vpn.Server) 0 "server's exit code"
                  site.Vpn.Server.AwaitLog "stopped" "the last line")
          }

          test "a reader of the log that goes away ends neither program" {
              withServer (fun site ->
                  // The reader takes one line and is gone; each later line meets a broken pipe.
                  let client =
                      site.LaunchBehind
                          [ "sh"
                            "-c"
                            $"mkfifo {site.Vpn.Folder}/pipe; head -n 1 {site.Vpn.Folder}/pipe & exec \"$@\" > {site.Vpn.Folder}/pipe"
                            "sh" ]

                  client.Await patience "it is online" (fun () -> site.CarriesPing)
                  Expect.isTrue (client.Stop()) "SIGTERM ends it"
                  Expect.equal client.ExitCode 0 "exit code")
          } ]

let private routes =
    testList
        "routes"
        [ test "no program is run for routes: a client without ip(8) in its PATH comes online" {
              withServer (fun site ->
                  let before = site.Routes
                  let client = site.LaunchBehind [ "env"; "PATH=/nonexistent" ]
                  site.AwaitOnline client
                  Expect.isTrue (client.Stop()) "SIGTERM ends it"
                  Expect.equal client.ExitCode 0 "exit code"
                  expectRoutes site before)
          }

          test "mode default sends all but the server's datagrams through the tunnel" {
              withServer (fun site ->
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  Expect.stringContains site.ServerRoute $"via {site.Gateway} dev outside" "the server"

                  for destination in [ "0.0.0.0/1"; "128.0.0.0/1"; "100.64.0.1" ] do
                      let found = site.Routes |> List.filter _.StartsWith(destination + " ")
                      Expect.hasLength found 1 destination
                      Expect.stringContains found.Head $"dev {site.Vpn.Device}" destination)
          }

          test "mode lan leaves local networks on their present way" {
              withServer (fun site ->
                  site.Vpn.SetClient [ "route_mode", "lan" ]
                  let before = site.Routes
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client

                  for destination in
                      [ "10.0.0.0/8"; "172.16.0.0/12"; "192.168.0.0/16"; "169.254.0.0/16"; "224.0.0.0/24" ] do
                      let found = site.Routes |> List.filter _.StartsWith(destination + " ")
                      Expect.hasLength found 1 destination
                      Expect.stringContains found.Head $"via {site.Gateway} dev outside" destination

                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
                  expectRoutes site before)
          }

          test "after kill -9 and with another gateway, the next start replaces what was left behind" {
              withServer (fun site ->
                  site.Vpn.SetClient [ "route_mode", "lan" ]
                  let before = site.Routes
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  site.Vpn.Client.Signal Netns.Signal.Kill
                  Expect.isTrue (site.Vpn.Client.WaitForExit patience) "killed"
                  Expect.stringContains site.ServerRoute site.Gateway "left behind"
                  site.ChangeGateway()
                  site.Vpn.SetClient [ "route_mode", "default" ]
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  Expect.stringContains site.ServerRoute site.OtherGateway "by the new gateway"
                  Expect.isEmpty (site.Routes |> List.filter _.StartsWith("10.0.0.0/8")) "a route of the earlier mode"
                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"

                  Expect.equal
                      site.Routes
                      (before |> List.map _.Replace($"default via {site.Gateway}", $"default via {site.OtherGateway}"))
                      "routes")
          }

          test "on a persistent device, too, routes that a killed client has left behind are removed" {
              withServer (fun site ->
                  site.Ip $"tuntap add dev {site.Vpn.Device} mode tun" |> ignore
                  let before = site.Routes
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  site.Vpn.Client.Signal Netns.Signal.Kill
                  Expect.isTrue (site.Vpn.Client.WaitForExit patience) "killed"
                  Expect.isNonEmpty (site.Routes |> List.filter _.StartsWith("0.0.0.0/1 ")) "left behind"
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"

                  Expect.equal
                      (site.Routes |> List.filter (fun route -> not (route.Contains "100.64.0.5 dev")))
                      before
                      "but for the device's own address")
          }

          test "a route of the operator is neither replaced nor removed" {
              withServer (fun site ->
                  site.Ip $"route add {Topology.ServerOutside} via {site.OtherGateway}" |> ignore
                  site.Ip $"route add 128.0.0.0/1 via {site.Gateway}" |> ignore
                  let before = site.Routes
                  site.Vpn.SetClient [ "tun_dns_ip", "100.64.0.1" ]
                  site.Vpn.LaunchClient()

                  site.Vpn.Client.Await patience "it is online" (fun () ->
                      site.Vpn.Client.Log.Contains "online: " && site.Routes |> List.exists _.StartsWith("0.0.0.0/1 "))

                  for route in before do
                      Expect.contains site.Routes route "while the client runs"

                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
                  expectRoutes site before)
          }

          test "a second client does not take the routes of one that lives" {
              withServer (fun site ->
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  let routes = site.Routes
                  let second = site.LaunchBehind [ "env"; "LW_CLIENT_TUN_NAME=second" ]
                  Expect.equal (ends second) 1 "exit code"
                  Expect.stringContains second.Log site.Vpn.Device "names the device of the other"
                  Expect.stringContains second.Log "route_mode" "names a remedy"
                  Expect.equal site.Routes routes "routes"
                  staysOnline site site.Vpn.Client) // the first one is not disturbed
          }

          test "the route to the server is put back when it goes" {
              withServer (fun site ->
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  let route = site.ServerRoute
                  site.Ip $"route del {Topology.ServerOutside}" |> ignore
                  await "it is back" (fun () -> site.ServerRoute = route)
                  await "the tunnel carries packets" (fun () -> site.CarriesPing))
          }

          test "the route to the server follows the default route to another gateway" {
              withServer (fun site ->
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  site.ChangeGateway()
                  await "it follows" (fun () -> site.ServerRoute.Contains site.OtherGateway)
                  await "the tunnel carries packets" (fun () -> site.CarriesPing))
          }

          test "after the link was down and comes back with another gateway, the tunnel carries packets again" {
              withServer (fun site ->
                  let before = site.Routes
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  site.Ip "link set outside down" |> ignore
                  await "the kernel has taken the routes away" (fun () -> site.ServerRoute = "")
                  site.Ip "link set outside up" |> ignore

                  for address in [ site.Gateway; site.OtherGateway ] do
                      site.Ip $"route add {address} dev outside" |> ignore

                  site.Ip $"route add default via {site.OtherGateway}" |> ignore
                  await "the route is back" (fun () -> site.ServerRoute.Contains site.OtherGateway)
                  await "the tunnel carries packets" (fun () -> site.CarriesPing)
                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"

                  Expect.equal
                      (List.sort site.Routes)
                      (before
                       |> List.map _.Replace($"default via {site.Gateway}", $"default via {site.OtherGateway}")
                       |> List.sort)
                      "routes")
          } ]

let private addresses =
    testList
        "addresses"
        [ test "a name with an IPv6 address that does not answer: the next address is tried" {
              withServer (fun site ->
                  addIPv6 site

                  withHosts site [ "2001:db8:1::1 vpn.test"; $"{Topology.ServerOutside} vpn.test" ] (fun () ->
                      site.Vpn.SetClient [ "server", "vpn.test:27690" ]
                      site.Vpn.LaunchClient()
                      site.AwaitOnline site.Vpn.Client
                      site.Vpn.Client.AwaitLog "[2001:db8:1::1]:27690" "says what was tried first"

                      Expect.stringContains
                          site.Vpn.Client.Log
                          $"online: {Topology.ServerOutside}:27690"
                          "and what answered"))
          }

          test "a server that is reached over IPv6 needs no route of its own; mode lan keeps the local networks" {
              withSite settings (fun site ->
                  addIPv6 site
                  site.Vpn.SetServer [ "bind_address", "\"[::]:27690\"" ]
                  site.Vpn.StartServer()
                  site.Vpn.SetClient [ "server", "\"[2001:db8:1::1]:27690\""; "route_mode", "lan" ]
                  let before = site.Routes
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  Expect.equal site.ServerRoute "" "no route to an IPv4 address"

                  Expect.exists
                      site.Routes
                      _.StartsWith($"10.0.0.0/8 via {site.Gateway} dev outside")
                      "a local network, by the default route of IPv4"

                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
                  expectRoutes site before)
          }

          test "when no address of a name answers, the last line names them all" {
              withSite settings (fun site ->
                  addIPv6 site

                  withHosts site [ "2001:db8:1::1 vpn.test"; "192.0.2.1 vpn.test"; "192.0.2.253 vpn.test" ] (fun () ->
                      let before = site.Routes
                      site.Vpn.SetClient [ "server", "vpn.test:27691" ]
                      site.Vpn.LaunchClient()
                      Expect.isTrue (site.Vpn.Client.WaitForExit(TimeSpan.FromSeconds 120.)) "it ends"
                      Expect.equal site.Vpn.Client.ExitCode 1 "exit code"
                      let last = site.Vpn.Client.Log.TrimEnd().Split('\n') |> Array.last

                      for part in
                          [ "vpn.test:27691"
                            "[2001:db8:1::1]:27691"
                            "192.0.2.1:27691"
                            "192.0.2.253:27691"
                            "firewall" ] do
                          Expect.stringContains last part "the last line"

                      expectRoutes site before))
          } ]

let private texts =
    let lastLine (client: Child) =
        client.Log.TrimEnd().Split('\n') |> Array.last

    /// The client ends with this code, and its last line has these parts. What is wrong with the configuration, code 2, goes
    /// to standard error, and the order of that and the log is open.
    let says (site: Site) code (parts: string list) =
        site.Vpn.LaunchClient()
        Expect.equal (ends site.Vpn.Client) code "exit code"

        let line =
            if code = 2 then
                site.Vpn.Client.Log.Split '\n'
                |> Array.tryFind (fun line -> not (line.Contains "lightway-client: "))
                |> Option.defaultValue ""
            else
                lastLine site.Vpn.Client

        for part in parts do
            Expect.stringContains line part "the line that says why"

    testList
        "what it says when it fails"
        [ test "no answer: address and port, how long it waited, and what to check" {
              withServer (fun site ->
                  site.Vpn.SetClient [ "server", $"{Topology.ServerOutside}:9" ]
                  says site 1 [ "server: no answer from 192.0.2.1:9 within "; " s"; "port"; "firewall" ])
          }

          test "a wrong password: the user, the server, and where the password is set" {
              withServer (fun site ->
                  site.Vpn.SetClient [ "password", "secret-but-wrong" ]

                  says
                      site
                      3
                      [ $"wrong user or password for '{site.Vpn.User}' at {Topology.ServerOutside}:27690"
                        "check user and password in "
                        "client.yaml"
                        "(Unauthorized)" ]

                  Expect.isFalse (site.Vpn.Client.Log.Contains "ip_pool") "no other cause"
                  Expect.isFalse (site.Vpn.Client.Log.Contains "secret-but-wrong") "never the password")
          }

          test "no address left at the server: it says so, and that the user is right" {
              withSite
                  { settings with
                      ServerKeys = [ "ip_pool", "10.125.0.0/30"; "tun_ip", "10.125.0.1" ] }
                  (fun site ->
                      site.Vpn.StartServer()

                      // Of the four addresses of the pool, one is the server's, one the network's, one for broadcasts.
                      let first =
                          site.LaunchBehind [ "env"; "LW_CLIENT_TUN_NAME=first"; "LW_CLIENT_ROUTE_MODE=noexec" ]

                      first.Await patience "the first is online" (fun () -> first.Log.Contains "online: ")

                      says
                          site
                          1
                          [ $"server: no address left at {Topology.ServerOutside}:27690"
                            $"'{site.Vpn.User}'"
                            "ip_pool"
                            "(NoFreeClientIp)" ]

                      Expect.isFalse (site.Vpn.Client.Log.Contains "wrong user") "no other cause")
          }

          test "a certificate of an unknown authority: ca_cert, its file, and what to do" {
              withServer (fun site ->
                  let stranger = Path.Combine(site.Topology.Folder, "stranger")
                  Shell.run (Programs.OfThisBuild().Server) [ "init"; stranger; "--address"; "192.0.2.9:1" ] |> ignore
                  let authority = Path.Combine(stranger, "ca_cert.crt")
                  site.Vpn.SetClient [ "ca_cert", authority ]
                  says site 1 [ "certificate"; "ca_cert"; authority; "authority" ])
          }

          test "a certificate of another name: server_dn, and what to do" {
              withServer (fun site ->
                  site.Vpn.SetClient [ "server_dn", "other.example.com" ]
                  says site 1 [ "certificate"; "server_dn"; "other.example.com"; "name" ])
          }

          for what, expired, parts in
              [ "the server's own, by UDP", "lightway.vpn", [ "expired on 2021-01-01 (CN=lightway.vpn)"; "clock" ]
                "that of the authority between", "between", [ "expired on 2021-01-01 (CN=between)"; "clock" ]
                "not valid yet, by TCP", "", [ "is not valid before 2090-01-01 (CN=lightway.vpn)"; "clock" ] ] do
              test $"a certificate that is out of date ({what}): server, date and name, and what to do" {
                  withSite settings (fun site ->
                      let write (name: string) (text: string) =
                          File.WriteAllText(Path.Combine(site.Vpn.Folder, name), text + "\n")

                      let year number =
                          DateTimeOffset(number, 1, 1, 0, 0, 0, TimeSpan.Zero)

                      let until name =
                          year (if name = expired then 2021 else 2100)

                      let request (name: string) (key: ECDsa) (isAuthority: bool) =
                          let request = CertificateRequest($"CN={name}", key, HashAlgorithmName.SHA256)
                          request.CertificateExtensions.Add(X509BasicConstraintsExtension(isAuthority, false, 0, true))
                          let names = SubjectAlternativeNameBuilder()
                          names.AddDnsName name
                          request.CertificateExtensions.Add(names.Build())
                          request

                      let curve = ECCurve.NamedCurves.nistP256
                      use topKey = ECDsa.Create curve
                      use middleKey = ECDsa.Create curve
                      use key = ECDsa.Create curve
                      use top = (request "top" topKey true).CreateSelfSigned(year 2020, year 2100)

                      use middle =
                          (request "between" middleKey true).Create(top, year 2020, until "between", [| 1uy |])

                      let from = year (if expired = "" then 2090 else 2020)
                      use signer = middle.CopyWithPrivateKey middleKey

                      use own =
                          (request "lightway.vpn" key false)
                              .Create(
                                  signer.SubjectName,
                                  X509SignatureGenerator.CreateForECDsa middleKey,
                                  from,
                                  until "lightway.vpn",
                                  [| 2uy |]
                              )

                      write "server.key" (key.ExportPkcs8PrivateKeyPem())
                      write "server.crt" (own.ExportCertificatePem() + "\n" + middle.ExportCertificatePem())
                      write "ca_cert.crt" (top.ExportCertificatePem())
                      let mode = if expired = "" then "tcp" else "udp"
                      site.Vpn.SetServer [ "mode", "both" ]
                      site.Vpn.SetClient [ "server_dn", "lightway.vpn"; "mode", mode ]
                      site.Vpn.StartServer()
                      says site 1 ($"the certificate of {Topology.ServerOutside}:27690 " :: parts))
              }

          test "an authority that has expired: ca_cert, its file, and what to do, code 2" {
              withSite settings (fun site ->
                  use key = ECDsa.Create ECCurve.NamedCurves.nistP256
                  let request = CertificateRequest("CN=old", key, HashAlgorithmName.SHA256)
                  request.CertificateExtensions.Add(X509BasicConstraintsExtension(true, false, 0, true))

                  let year number =
                      DateTimeOffset(number, 1, 1, 0, 0, 0, TimeSpan.Zero)

                  use authority = request.CreateSelfSigned(year 2020, year 2021)
                  let file = Path.Combine(site.Vpn.Folder, "ca_cert.crt")
                  File.WriteAllText(file, authority.ExportCertificatePem() + "\n")
                  says site 2 [ "ca_cert"; file; "expired"; "renewed"; "clock" ])
          }

          test "a relative ca_cert in the file starts at the file's directory; one that does not exist is named, code 2" {
              withServer (fun site ->
                  site.Vpn.SetClient [ "ca_cert", "./ca_cert.crt" ]
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  Expect.isTrue (site.Vpn.Client.Stop()) "it ends"
                  site.Vpn.SetClient [ "ca_cert", "nothing.crt" ]
                  says site 2 [ "ca_cert: "; Path.Combine(site.Vpn.Folder, "nothing.crt"); "does not exist" ])
          }

          test "a name that cannot be resolved: the name, and what to check" {
              withServer (fun site ->
                  site.Vpn.SetClient [ "server", "nowhere.invalid:27690" ]
                  says site 1 [ "server: 'nowhere.invalid' cannot be resolved"; "DNS" ])
          }

          test "no route to the server: its address, and what to check" {
              withServer (fun site ->
                  site.Ip "route del default" |> ignore
                  says site 1 [ "server: no route to 192.0.2.1"; "ip route get 192.0.2.1" ])
          } ]

let tests =
    testSequenced (testList "Client end to end" [ signals; routes; addresses; texts ])

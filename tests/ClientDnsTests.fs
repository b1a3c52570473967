/// The client's DNS settings: real resolvers on a machine of its own /etc and /run, and a name server beyond the tunnel.
module Lightway.Tests.ClientDnsTests

open System
open System.IO
open System.Net
open System.Net.Sockets
open System.Threading.Tasks
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks
open Lightway.Tests.ClientSite

/// Debian packages that `build.fsx` has unpacked, not installed: they would change this machine's DNS.
let private package (name: string) =
    let rec find (folder: string) =
        if File.Exists(Path.Combine(folder, "Lightway.slnx")) then
            Path.Combine(folder, "artifacts", "debian", name)
        else
            find (Path.GetDirectoryName folder)

    let folder = find AppContext.BaseDirectory

    if not (Directory.Exists folder) then
        skiptest $"{folder} is not there: dotnet fsi build.fsx unpacks it on Debian"

    folder

/// Answers each question for an IPv4 address with 192.0.2.77 (RFC 1035), at the remote.
type private NameServer(topology: Topology) =
    let socket =
        Netns.run topology.RemoteHost (fun () -> new UdpClient(IPEndPoint(IPAddress.Parse Topology.Remote, 53)))

    let answer (query: byte[]) =
        let mutable at = 12

        while query[at] <> 0uy do
            at <- at + int query[at] + 1

        let isIPv4 = query[at + 2] = 1uy
        let question = query[12 .. at + 4]

        let header =
            [| query[0]
               query[1]
               0x81uy
               0x80uy
               0uy
               1uy
               0uy
               (if isIPv4 then 1uy else 0uy)
               0uy
               0uy
               0uy
               0uy |]

        let record =
            [| 0xC0uy; 12uy; 0uy; 1uy; 0uy; 1uy; 0uy; 0uy; 0uy; 60uy; 0uy; 4uy; 192uy; 0uy; 2uy; 77uy |]

        Array.concat [ header; question; (if isIPv4 then record else [||]) ]

    let serving =
        Task.Run(fun () ->
            try
                while true do
                    let mutable peer = IPEndPoint(IPAddress.Any, 0)
                    let query = socket.Receive &peer

                    if query.Length > 12 then
                        let reply = answer query
                        socket.Send(reply, reply.Length, peer) |> ignore
            with
            | :? SocketException
            | :? ObjectDisposedException -> ())

    interface IDisposable with
        member _.Dispose() =
            socket.Dispose()
            serving.Wait()

/// Files of the client's machine: /etc and /run are folders of their own, as long as this lives, for every program that is
/// started in it.
type private Box(site: Site, setUp: string list) =
    let root = Path.Combine(site.Topology.Folder, "box")
    let etc = Path.Combine(root, "etc")

    do
        Directory.CreateDirectory(Path.Combine(root, "run")) |> ignore

        // Tests that run at the same time have files there, which may go away meanwhile.
        let copy () =
            match Shell.tryRun "cp" [ "-a"; "/etc"; root ] with
            | struct (0, _, _) -> true
            | _ -> false

        await "a copy of /etc" copy

    let ready = Path.Combine(root, "ready")
    let script = Path.Combine(root, "box.sh")

    let commands =
        [ "set -e"; $"mount --bind {etc} /etc"; $"mount --bind {root}/run /run" ]
        @ setUp
        @ [ $"touch {ready}"; "exec sleep 1000" ]

    do File.WriteAllLines(script, commands)

    let holder =
        Child.Start site.Topology.Client "box" "unshare" [ "--mount"; "sh"; script ] (Path.Combine(root, "box.log"))

    let inside = [ "nsenter"; "-t"; string holder.Pid; "--mount" ]

    do holder.Await patience "it is ready" (fun () -> File.Exists ready)

    /// The path of a file of /etc from outside.
    member _.Etc(name: string) = Path.Combine(etc, name)

    /// Runs a program inside, as `sh` does; its standard output.
    member _.Run(command: string) =
        Shell.inside site.Topology.Client "nsenter" ([ "-t"; string holder.Pid; "--mount" ] @ [ "sh"; "-c"; command ])

    /// Starts the client inside.
    member _.Launch() =
        await "no client has the device" (fun () -> not site.HasDevice)
        site.LaunchBehind inside

    member this.ResolvConf = this.Run "cat /etc/resolv.conf"

    /// The addresses of a name, by the C library.
    member this.Resolve(name: string) =
        let struct (_, output, _) =
            Shell.tryRun "ip" ([ "netns"; "exec"; site.Topology.Client ] @ inside @ [ "getent"; "ahostsv4"; name ])

        output

    interface IDisposable with
        member _.Dispose() = (holder :> IDisposable).Dispose()

let private original = "# theirs\nnameserver 192.0.2.53\nsearch example.com\n"

/// A server whose clients get a name server that answers, and a machine for the client.
let private withBox (setUp: string list) (body: Site -> Box -> unit) =
    withSite
        { settings with
            ServerKeys = [ "lightway_dns_ip", Topology.Remote ]
            ClientKeys = settings.ClientKeys @ [ "dns_config_mode", "default" ] }
        (fun site ->
            use _ = new NameServer(site.Topology)
            site.Vpn.StartServer()
            let given = Path.Combine(site.Topology.Folder, "resolv.conf")
            File.WriteAllText(given, original)
            use box = new Box(site, $"cp {given} /etc/resolv.conf" :: setUp)
            body site box)

let private launchOnline (site: Site) (box: Box) =
    let client = box.Launch()
    site.AwaitOnline client
    client.Await patience "DNS is set" (fun () -> client.Log.Contains "names are asked for at 100.64.0.1")
    client

let private stop (client: Child) =
    Expect.isTrue (client.Stop()) "SIGTERM ends it"
    Expect.equal client.ExitCode 0 "exit code"

let private kill (site: Site) (client: Child) =
    client.Signal Netns.Signal.Kill
    Expect.isTrue (client.WaitForExit patience) "killed"
    await "the device is gone" (fun () -> not site.HasDevice)

let private resolves (box: Box) =
    await "a name is resolved through the tunnel" (fun () -> (box.Resolve "probe.example.com").Contains "192.0.2.77")

let private names (box: Box) =
    Directory.GetFileSystemEntries(box.Etc "", "resolv.conf*")
    |> Array.map Path.GetFileName
    |> List.ofArray
    |> List.sort

let private file =
    testList
        "file"
        [ test "replaced and put back: at the end, at the next start after kill -9, and by reset" {
              withBox [] (fun site box ->
                  let inode () =
                      Shell.run "stat" [ "-c"; "%i %a"; box.Etc "resolv.conf" ]

                  let before = inode ()
                  let client = launchOnline site box
                  Expect.stringContains box.ResolvConf "nameserver 100.64.0.1\n" "the tunnel's"
                  Expect.isFalse (box.ResolvConf.Contains "192.0.2.53") "and no other"
                  resolves box
                  stop client
                  Expect.equal box.ResolvConf original "at the end"
                  Expect.equal (inode ()) before "the same file"

                  kill site (launchOnline site box)
                  Expect.stringContains box.ResolvConf "100.64.0.1" "left behind"
                  let client = launchOnline site box
                  client.AwaitLog "restored /etc/resolv.conf" "says so"
                  kill site client

                  let said = box.Run $"{Programs.OfThisBuild().Client} reset"

                  for part in
                      [ "restored /etc/resolv.conf"; $"removed the route unreachable {Topology.ServerOutside}/32" ] do
                      Expect.stringContains said part "reset says so"

                  Expect.equal box.ResolvConf original "by reset"
                  Expect.equal (inode ()) before "the same file"
                  Expect.equal (names box) [ "resolv.conf" ] "nothing else is left")
          }

          test "a file that another program puts there comes back at the end; a symbolic link as a link" {
              withBox [ "mv /etc/resolv.conf /run/theirs; ln -s ../run/theirs /etc/resolv.conf" ] (fun site box ->
                  let client = launchOnline site box
                  Expect.isNull (FileInfo(box.Etc "resolv.conf").LinkTarget) "a file in its place"
                  stop client
                  Expect.equal (FileInfo(box.Etc "resolv.conf").LinkTarget) "../run/theirs" "the link is back"
                  Expect.equal (names box) [ "resolv.conf" ] "nothing else is left"
                  let client = launchOnline site box
                  let younger = original.Replace("53", "54")
                  File.WriteAllText(box.Etc "younger", younger)
                  box.Run "mv /etc/younger /etc/resolv.conf" |> ignore
                  await "it is the tunnel's again" (fun () -> box.ResolvConf.Contains "100.64.0.1")
                  stop client
                  Expect.equal box.ResolvConf younger "theirs"
                  Expect.equal (names box) [ "resolv.conf" ] "nothing else is left")
          }

          test "a file that is a mount of its own, as in containers; no file at all; a file system that is read-only" {
              withBox [ "cp /etc/resolv.conf /run/theirs; mount --bind /run/theirs /etc/resolv.conf" ] (fun site box ->
                  let client = launchOnline site box
                  Expect.stringContains box.ResolvConf "nameserver 100.64.0.1\n" "the tunnel's"
                  resolves box
                  stop client
                  Expect.equal box.ResolvConf original "at the end"
                  Expect.equal (names box) [ "resolv.conf" ] "nothing else is left"

                  box.Run "umount /etc/resolv.conf; rm /etc/resolv.conf" |> ignore
                  let client = launchOnline site box
                  resolves box
                  stop client
                  Expect.equal (names box) [] "no file, as before"

                  box.Run "cp /run/theirs /etc/resolv.conf; mount -o remount,bind,ro /etc" |> ignore
                  let client = box.Launch()
                  Expect.equal (ends client) 1 "exit code"

                  for part in [ "/etc/resolv.conf"; "read-only"; "dns_config_mode: noexec" ] do
                      client.AwaitLog part "the last line"

                  site.Vpn.SetClient [ "dns_config_mode", "noexec" ]
                  let client = box.Launch()
                  site.AwaitOnline client
                  Expect.equal box.ResolvConf original "noexec leaves all as it is"
                  stop client)
          } ]

let private openresolv =
    testList
        "openresolv"
        [ test "the entry is exclusive, and goes at the end, at the next start after kill -9, and by reset" {
              needsRoot ()
              let package = package "openresolv"

              let setUp =
                  [ for folder in [ "lib"; "sbin" ] do
                        $"mount -t overlay overlay -o lowerdir={package}/{folder}:/usr/{folder} /usr/{folder}"
                    $"cp {package}/etc/resolvconf.conf /etc/"
                    "printf 'nameserver 192.0.2.53\\n' | resolvconf -a eth0" ]

              withBox setUp (fun site box ->
                  let before = box.ResolvConf
                  Expect.stringContains before "Generated by resolvconf" "it is openresolv's"
                  let client = launchOnline site box
                  Expect.stringContains box.ResolvConf "nameserver 100.64.0.1" "the tunnel's"
                  Expect.isFalse (box.ResolvConf.Contains "192.0.2.53") "and no other"
                  resolves box
                  stop client
                  Expect.equal box.ResolvConf before "at the end"
                  kill site (launchOnline site box)
                  let client = launchOnline site box
                  client.AwaitLog "restored the entry" "says so"
                  kill site client
                  box.Run $"{Programs.OfThisBuild().Client} reset" |> ignore
                  Expect.equal box.ResolvConf before "by reset")
          } ]

/// A bus for systemd-resolved, which is not the machine's.
let private bus (package: string) =
    $"""<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/>
<allow receive_type="signal"/><allow send_destination="org.freedesktop.DBus"/></policy>
<include>{package}/usr/share/dbus-1/system.d/org.freedesktop.resolve1.conf</include></busconfig>
"""

let private resolved =
    testList
        "systemd-resolved"
        [ test "the link gets the server and all domains; all is as before at the end" {
              needsRoot ()
              let package = package "systemd-resolved"

              if not (File.Exists "/usr/bin/dbus-daemon") then
                  skiptest "dbus-daemon is not installed"

              let libraries = Path.Combine(Path.GetDirectoryName package, "libsystemd-shared")
              let config = Path.GetTempFileName()
              File.WriteAllText(config, bus package)

              let setUp =
                  [ $"mount -t overlay overlay -o lowerdir={package}/usr/bin:/usr/bin /usr/bin"
                    "grep -q ^systemd-resolve: /etc/passwd || echo 'systemd-resolve:x:996:996::/:/usr/sbin/nologin' >> /etc/passwd"
                    "grep -q ^systemd-resolve: /etc/group || echo 'systemd-resolve:x:996:' >> /etc/group"
                    "mkdir -p /run/dbus /run/systemd/resolve /run/systemd/netif/links /etc/systemd"
                    "chown systemd-resolve: /run/systemd/resolve"
                    "printf '[Resolve]\\nDNS=192.0.2.53\\nLLMNR=no\\nMulticastDNS=no\\n' > /etc/systemd/resolved.conf"
                    $"cp {config} /etc/bus.conf"
                    $"export LD_LIBRARY_PATH=$(find {libraries} -name 'libsystemd-shared-*.so' -printf '%%h' -quit 2>/dev/null)"
                    "dbus-daemon --config-file=/etc/bus.conf --nofork &"
                    "until [ -e /run/dbus/system_bus_socket ]; do sleep 0.05; done"
                    $"{package}/lib/systemd/systemd-resolved &"
                    "until [ -e /run/systemd/resolve/stub-resolv.conf ]; do sleep 0.05; done"
                    "ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf" ]

              try
                  withBox setUp (fun site box ->
                      let before = box.ResolvConf
                      let client = launchOnline site box
                      client.AwaitLog "(systemd-resolved)" "the way"
                      Expect.equal box.ResolvConf before "the file stays"
                      let status = box.Run $"resolvectl status {site.Vpn.Device}"
                      Expect.stringContains status "DNS Servers: 100.64.0.1" "the server"
                      Expect.stringContains status "DNS Domain: ~." "all domains"
                      resolves box
                      kill site client

                      // systemd-resolved hears of it from the kernel; a link that goes just then may fail the question.
                      await "gone with the device" (fun () ->
                          try
                              not ((box.Run "resolvectl dns").Contains "100.64.0.1")
                          with LabException _ ->
                              false)

                      stop (launchOnline site box)
                      Expect.isFalse ((box.Run "resolvectl dns").Contains "100.64.0.1") "gone at the end")
              finally
                  File.Delete config
          } ]

let tests = testSequenced (testList "Client DNS" [ file; openresolv; resolved ])

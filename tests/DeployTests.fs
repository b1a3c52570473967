/// What operators install: the packages that `build.fsx -t QuickPackage` has made, on a root file system like that of a
/// machine that has them, and the descriptions for containers.
module Lightway.Tests.DeployTests

open System
open System.IO
open System.Runtime.InteropServices
open System.Security.Cryptography
open System.Text.Json.Nodes
open System.Text.RegularExpressions
open Expecto
open Lightway.Lab
open Lightway.Options
open Lightway.Tests.Checks
open YamlDotNet.RepresentationModel

let private repository =
    let rec up (folder: string) =
        if File.Exists(Path.Combine(folder, "Lightway.slnx")) then
            folder
        else
            up (Path.GetDirectoryName folder)

    up AppContext.BaseDirectory

let private deployed (path: string) =
    Path.Combine(repository, "deploy", path)

let private architecture =
    if RuntimeInformation.ProcessArchitecture = Architecture.Arm64 then
        "arm64"
    else
        "amd64"

let private quick = Path.Combine(repository, "artifacts", "package", "quick")

let private package (program: string) : string =
    match Directory.Exists quick, lazy Directory.GetFiles(quick, $"lightway-{program}_*_{architecture}.deb") with
    | true, Lazy [| file |] -> file
    | _ -> skiptest "no packages: dotnet fsi build.fsx -t QuickPackage"

/// The files of both packages, each in a folder of its own, as dpkg unpacks them. They are on a file system of their own,
/// because an overlay takes no layer that lies in another one.
let private withPackages (body: string -> string list -> unit) =
    needsRoot ()
    let folder = Directory.CreateTempSubdirectory "lightway-tests-"
    Shell.run "mount" [ "-t"; "tmpfs"; "tmpfs"; folder.FullName ] |> ignore

    try
        let trees =
            [ for program in [ "server"; "client" ] do
                  let tree = Path.Combine(folder.FullName, program)
                  Shell.run "dpkg-deb" [ "--extract"; package program; tree ] |> ignore
                  tree ]

        body folder.FullName trees
    finally
        Shell.run "umount" [ "--lazy"; folder.FullName ] |> ignore // the kernel keeps it for whoever has still to end
        folder.Delete()

let private user = 4321 // no user of this machine

/// The folder with the .NET of this process, which the packages must do without.
let private dotnet =
    Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", ".."))

/// A shell script that runs `commands` in a root of its own, where the packages are installed over this machine's files, the
/// user `lightway` exists, .NET does not, and nothing can be written but /etc/lightway, which is the folder `configuration`.
let private inRoot
    (folder: string)
    (trees: string list)
    (configuration: string)
    (name: string)
    (commands: string list)
    =
    let root = Directory.CreateDirectory(Path.Combine(folder, $"root-{name}")).FullName
    let users = Directory.CreateDirectory(Path.Combine(folder, "users", "etc")).FullName

    for file, line in [ "passwd", $"lightway:x:{user}:{user}::/:/usr/sbin/nologin"; "group", $"lightway:x:{user}:" ] do
        File.WriteAllText(Path.Combine(users, file), File.ReadAllText($"/etc/{file}").TrimEnd() + "\n" + line + "\n")

    let layers = String.concat ":" ([ Path.GetDirectoryName users ] @ trees @ [ "/" ])
    let inner = Path.Combine(configuration, $"{name}.sh")
    File.WriteAllLines(inner, "set -e" :: commands)

    let outer =
        [ "set -e"
          $"mount -t overlay -o ro,lowerdir={layers} overlay {root}" // no upper layer: nothing can be written
          $"mount --rbind /proc {root}/proc"
          $"mount -t tmpfs tmpfs {root}/dev; mkdir {root}/dev/net"
          $"for d in 'null 1 3' 'zero 1 5' 'random 1 8' 'urandom 1 9' 'net/tun 10 200'; do set -- $d; mknod -m 666 {root}/dev/$1 c $2 $3; done"
          $"mount -t tmpfs -o ro tmpfs {root}{dotnet}"
          $"mount --bind {configuration} {root}/etc/lightway"
          $"mount -t tmpfs tmpfs {root}/run"
          $"exec chroot {root} env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh /etc/lightway/{name}.sh" ]

    let script = Path.Combine(folder, $"{name}.sh")
    File.WriteAllLines(script, outer)
    [ "--mount"; "sh"; script ]

let private wait = TimeSpan.FromMinutes 2. // nothing of these programs is compiled ahead of time

let private installed =
    testList
        "Installed"
        [ test
              "without .NET, as a user without a capability, on a read-only root: the server serves a prepared device, a client gets through" {
              withPackages (fun folder trees ->
                  use topology = Topology.Create()

                  let configuration =
                      Directory.CreateDirectory(Path.Combine(folder, "configuration")).FullName

                  Shell.run "chmod" [ "711"; folder ] |> ignore
                  // What the package's postinst does with /etc/lightway.
                  Shell.run "chgrp" [ string user; configuration ] |> ignore
                  Shell.run "chmod" [ "2750"; configuration ] |> ignore

                  // `init` takes an empty folder only, and the scripts lie in this one.
                  let made = Path.Combine(configuration, "made")

                  let run netns name commands =
                      let arguments = inRoot folder trees configuration name commands
                      Shell.inside netns "unshare" arguments

                  Directory.CreateDirectory made |> ignore
                  Shell.run "chmod" [ "2750"; made ] |> ignore

                  run
                      topology.Server
                      "init"
                      [ $"lightway-server init /etc/lightway/made --address {Topology.ServerOutside}:27690"
                        "lightway-server setup-host --apply --config-file /etc/lightway/made/server.yaml --user lightway"
                        "! touch /tmp/file 2>/dev/null" ]
                  |> ignore

                  let asService =
                      $"exec setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs"

                  let start netns name commands =
                      let arguments = inRoot folder trees configuration name commands
                      Child.Start netns name "unshare" arguments (Path.Combine(folder, $"{name}.log"))

                  use server =
                      start
                          topology.Server
                          "server"
                          [ $"{asService} lightway-server --config-file /etc/lightway/made/server.yaml" ]

                  server.Await wait "it serves" (fun () -> server.Log.Contains "serving ")
                  let status = File.ReadAllText $"/proc/{server.Pid}/status"
                  Expect.isTrue (Regex.IsMatch(status, $@"Uid:\t{user}\t")) status

                  for capabilities in [ "CapPrm"; "CapEff"; "CapBnd"; "CapAmb" ] do
                      Expect.isTrue (Regex.IsMatch(status, $@"{capabilities}:\t0+\n")) status

                  server.AwaitLog "(/usr/lib/lightway-server/libwolfssl.so)" "the library next to the program"

                  let maps = File.ReadAllText $"/proc/{server.Pid}/maps"
                  Expect.isFalse (maps.Contains dotnet) "nothing of this machine's .NET"
                  Expect.isFalse (maps.Contains ".dll") "the assemblies are in the program"

                  use client =
                      start
                          topology.Client
                          "client"
                          [ "exec lightway-client --config-file /etc/lightway/made/client.yaml" ]

                  client.Await wait "the remote answers" (fun () ->
                      let struct (code, _, _) =
                          Shell.tryRun "ip" [ "-n"; topology.Client; "route"; "get"; Topology.Remote ]

                      code = 0 && Transfer.ping topology.Client Topology.Remote 1 56 = 1)

                  Expect.isTrue (client.Stop()) client.LogTail
                  Expect.isTrue (server.Stop()) server.LogTail)
          }

          test "systemd finds nothing wrong with the units" {
              withPackages (fun folder trees ->
                  let configuration =
                      Directory.CreateDirectory(Path.Combine(folder, "configuration")).FullName

                  for unit' in [ "lightway-server"; "lightway-server-device"; "lightway-client" ] do
                      let command =
                          $"mount -t tmpfs tmpfs /tmp; systemd-analyze verify /usr/lib/systemd/system/{unit'}.service"

                      let struct (code, output, error) =
                          Shell.tryRun "unshare" (inRoot folder trees configuration "verify" [ command ])

                      Expect.equal code 0 (output + error)
                      Expect.equal error "" "no warning")
          }

          for unit', limit in [ "lightway-server", 14; "lightway-server-device", 23; "lightway-client", 21 ] do
              test $"{unit'}: its exposure by systemd-analyze security is {float limit / 10.} at most" {
                  let struct (code, output, error) =
                      Shell.tryRun
                          "systemd-analyze"
                          [ "security"
                            "--no-pager"
                            "--offline=true"
                            $"--threshold={limit}"
                            deployed $"systemd/{unit'}.service" ]

                  Expect.equal code 0 (output + error)
                  Expect.stringContains output "Overall exposure level" "it was computed"
              }

          for program in [ "server"; "client" ] do
              test $"{program}: man renders its page, and bash, zsh and fish load its completions, without a warning" {
                  List.iter needsProgram [ "man"; "bash"; "zsh"; "fish" ]

                  withPackages (fun folder _ ->
                      let tree = Path.Combine(folder, program)
                      let name = $"lightway-{program}"

                      let succeeds (words: string) (command: string) (arguments: string list) =
                          let struct (code, output, error) = Shell.tryRun command arguments
                          Expect.equal (code, error) (0, "") $"{command}: no warning"
                          Expect.stringContains output words command

                      let at (path: string) = Path.Combine(tree, path)

                      succeeds
                          $"{name} - Lightway VPN {program}"
                          "env"
                          [ "MANROFFOPT=-ww"
                            "LC_ALL=C"
                            "man"
                            "-l"
                            "--warnings=w"
                            at $"usr/share/man/man8/{name}.8.gz" ]

                      let bash = at $"usr/share/bash-completion/completions/{name}"
                      succeeds $" {name}" "bash" [ "-euc"; $". {bash}; complete -p {name}" ]

                      let zsh = at "usr/share/zsh/vendor-completions"

                      succeeds
                          $"_{name}"
                          "zsh"
                          [ "-fc"; $"fpath=({zsh} $fpath); autoload -U compinit; compinit -D; echo $_comps[{name}]" ]

                      let fish = at $"usr/share/fish/vendor_completions.d/{name}.fish"
                      succeeds "--config-file" "fish" [ "-Nc"; $"source {fish}; complete -C '{name} --conf'" ])
              }

          test "files are root's, and nobody else may write; scripts are free of errors" {
              for program in [ "server"; "client" ] do
                  let file = package program

                  for line in (Shell.run "dpkg-deb" [ "--contents"; file ]).Trim().Split '\n' do
                      Expect.stringContains line " root/root " ""
                      Expect.isTrue (Regex.IsMatch(line, "^(d|-)rw[x-]r-[x-]r-[x-] |^lrwxrwxrwx ")) line

                  for script in [ "postinst"; "prerm"; "postrm" ] do
                      let text = Shell.run "dpkg-deb" [ "--info"; file; script ]
                      let path = Path.GetTempFileName()
                      File.WriteAllText(path, text)
                      Shell.run "sh" [ "-n"; path ] |> ignore
                      File.Delete path
          } ]

let private field (name: string) (node: JsonNode) : JsonNode = node[name]

/// The bill of materials next to a package.
let private bill (program: string) =
    let file = Regex.Replace(package program, @"\.deb$", ".spdx.json")
    JsonNode.Parse(File.ReadAllText file)

let private texts (nodes: JsonNode) (name: string) =
    [ for node in nodes.AsArray() -> string node[name] ]

let private bills =
    testList
        "Bill of materials"
        [ for program, project in [ "server", "Lightway.Server"; "client", "Lightway.Client" ] do
              test $"{program}: it has what SPDX 2.3 requires, and its references lead somewhere" {
                  let bill = bill program

                  for name, value in
                      [ "spdxVersion", "SPDX-2.3"; "dataLicense", "CC0-1.0"; "SPDXID", "SPDXRef-DOCUMENT" ] do
                      Expect.equal (string bill[name]) value name

                  Expect.isTrue (Uri.IsWellFormedUriString(string bill["documentNamespace"], UriKind.Absolute)) "§6.5"
                  let created = string bill["creationInfo"].["created"]
                  Expect.isTrue (Regex.IsMatch(created, @"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")) "§6.9"

                  let ids =
                      "SPDXRef-DOCUMENT" :: texts bill["packages"] "SPDXID" @ texts bill["files"] "SPDXID"

                  Expect.equal (List.distinct ids) ids "§7.2: unique"

                  for id in ids do
                      Expect.isTrue (Regex.IsMatch(id, "^SPDXRef-[A-Za-z0-9.-]+$")) id

                  for package in bill["packages"].AsArray() do
                      for field in
                          [ "name"; "downloadLocation"; "licenseConcluded"; "licenseDeclared"; "copyrightText" ] do
                          Expect.isNotEmpty (string package[field]) $"""{package["name"]}: {field}"""

                  for relation in bill["relationships"].AsArray() do
                      for field in [ "spdxElementId"; "relatedSpdxElement" ] do
                          Expect.contains ids (string relation[field]) "it exists"

                  Expect.contains (texts bill["relationships"] "relationshipType") "DESCRIBES" "§11.1"
              }

              test
                  $"{program}: it has the packages of the lock file, .NET and wolfSSL, with licences, and the package's files" {
                  withPackages (fun folder _ ->
                      let bill = bill program

                      let listed =
                          [ for package in bill["packages"].AsArray() ->
                                string package["name"], string package["versionInfo"] ]

                      let lockFile = Path.Combine(repository, "locks", $"{project}.lock.json")

                      let locked =
                          JsonNode.Parse(File.ReadAllText lockFile) |> field "dependencies" |> field "net10.0"

                      for package in locked.AsObject() do
                          match field "resolved" package.Value with
                          | null -> ()
                          | resolved -> Expect.contains listed (package.Key, string resolved) "locked"

                      let pin = File.ReadAllText(Path.Combine(repository, "native", "wolfssl.pin"))
                      let version = Regex.Match(pin, @"(?m)^version=(.+)$").Groups[1].Value
                      Expect.contains listed ("wolfssl", version) "wolfSSL"

                      Expect.isTrue
                          (listed |> List.exists (fun (name, _) -> name.StartsWith "Microsoft.NETCore.App.Runtime."))
                          ".NET"

                      for package in bill["packages"].AsArray() do
                          let licence = string package["licenseDeclared"]
                          Expect.notEqual licence "NOASSERTION" (string package["name"])

                      let tree = Path.Combine(folder, program)

                      for file in bill["files"].AsArray() do
                          let sums =
                              [ for sum in file["checksums"].AsArray() ->
                                    string sum["algorithm"], string sum["checksumValue"] ]

                          let bytes = File.ReadAllBytes(Path.Combine(tree, string file["fileName"]))
                          let actual = Convert.ToHexStringLower(SHA256.HashData bytes)
                          Expect.contains sums ("SHA256", actual) (string file["fileName"])

                      let files =
                          Directory.GetFiles(tree, "*", SearchOption.AllDirectories)
                          |> Array.filter (fun file -> isNull (FileInfo(file).LinkTarget))

                      Expect.hasLength (bill["files"].AsArray()) files.Length "all files")
              } ]

// Containers.

let private documents (path: string) : YamlNode list =
    use reader = new StreamReader(deployed path)
    let stream = YamlStream()
    stream.Load reader
    [ for document in stream.Documents -> document.RootNode ]

/// Walks down: names for maps, numbers for lists.
let rec private at (path: string list) (node: YamlNode) : YamlNode =
    match path, node with
    | [], node -> node
    | name :: rest, (:? YamlMappingNode as map) ->
        match map.Children.TryGetValue(YamlScalarNode name) with
        | true, child -> at rest child
        | _ -> failtestf "no %s in %O" name node
    | name :: rest, (:? YamlSequenceNode as list) -> at rest list.Children[int name]
    | name :: _, node -> failtestf "%s below %O" name node

let private valueAt path node =
    match at path node with
    | :? YamlScalarNode as scalar -> scalar.Value
    | node -> failtestf "%O is not a value" node

let private withKind (kind: string) (documents: YamlNode list) =
    documents |> List.find (fun document -> valueAt [ "kind" ] document = kind)

let private valuesAt path node =
    [ for entry in (at path node :?> YamlSequenceNode).Children -> string entry ]

let private serverOptions (yaml: string) : ServerOptions =
    let outcome =
        ServerOptions.Parse([| "-c"; "/server.yaml" |], Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> yaml))

    match outcome.Kind with
    | OutcomeKind.Run ->
        Expect.isEmpty outcome.Warnings "without a warning"
        outcome.Options
    | _ -> failtest outcome.Text

/// A command line of the server prepares its host: `setup-host --apply` for this file, and for the user of the service.
let private expectSetUp (file: string) (argv: string list) : HostOptions =
    let outcome =
        ServerOptions.Parse(Array.ofList argv, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

    if outcome.Kind <> OutcomeKind.SetUpHost then
        failtestf "%A is not a command to set up the host: %s" argv outcome.Text

    let host = outcome.Host
    Expect.equal (host.Action, host.ConfigFile, host.User) (HostAction.Apply, file, "lightway") "for the server"
    host

/// The words of a line in a unit.
let private wordsOf (unit': string) (key: string) : string list =
    let line =
        File.ReadAllLines(deployed $"systemd/{unit'}.service")
        |> Array.filter (fun line -> line.StartsWith(key + "="))
        |> Array.exactlyOne

    List.ofArray (line.Substring(key.Length + 1).Split ' ')

let private containerFile =
    lazy File.ReadAllText(deployed "container/Containerfile")

/// The user that the image has, who owns the files of volumes.
let private imageUser =
    lazy Regex.Match(containerFile.Value, @"(?m)^USER (\d+):\d+$").Groups[1].Value

let private configFile = "/etc/lightway/server.yaml"

let private devices =
    testList
        "Device"
        [ test "the unit prepares the host for the server's file and user, and takes it back; its options are accepted" {
              let server = wordsOf "lightway-server" "ExecStart"
              Expect.equal server [ "/usr/bin/lightway-server"; "--config-file"; configFile ] "the server's file"

              let start = wordsOf "lightway-server-device" "ExecStart"
              Expect.equal (wordsOf "lightway-server-device" "ExecReload") start "a reload applies it again"

              Expect.equal
                  (List.head start, List.last start)
                  ("/usr/bin/lightway-server", "$SETUP_HOST_OPTIONS")
                  "options"

              let words = start[1 .. start.Length - 2]
              let plain = expectSetUp configFile words
              Expect.isTrue plain.Nat "NAT by default"

              // Each option that the file of defaults names is one, and has an effect.
              let text = File.ReadAllText(deployed "systemd/lightway-server.default")
              Expect.stringContains text "\nSETUP_HOST_OPTIONS=\n" "empty"
              let examples = Regex.Match(text, @"For example ([^.]+)\.").Groups[1].Value

              let options = Regex.Replace(examples, @"[,#\s]+", " ").Split ' ' |> List.ofArray
              Expect.isGreaterThan options.Length 4 "examples"
              let full = expectSetUp configFile (words @ options)
              Expect.equal (full.Uplink, full.Mtu, full.Nat) ("eth1", 1280, false) "the examples"
              Expect.isTrue (full.ClientToClient && full.ClientToHost) "the examples"

              let stop = wordsOf "lightway-server-device" "ExecStop" |> List.tail |> Array.ofList

              let outcome =
                  ServerOptions.Parse(stop, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

              Expect.equal (outcome.Host.Action, outcome.Host.ConfigFile) (HostAction.Undo, configFile) "undo"
          } ]

let private version =
    lazy
        (let text = File.ReadAllText(Path.Combine(repository, "Directory.Build.props"))
         Regex.Match(text, "<Version>(.+)</Version>").Groups[1].Value)

let private containers =
    testList
        "Containers"
        [ test "Kubernetes: the configuration is accepted without a warning, and its values are those of the pod" {
              let documents = documents "kubernetes/daemonset.yaml"

              let options =
                  serverOptions (valueAt [ "data"; "server.yaml" ] (withKind "ConfigMap" documents))

              let pod = at [ "spec"; "template"; "spec" ] (withKind "DaemonSet" documents)

              let device = at [ "initContainers"; "0" ] pod
              let server = at [ "containers"; "0" ] pod
              Expect.equal (valuesAt [ "args" ] server) [ "--config-file"; configFile ] "the server's file"
              expectSetUp configFile (valuesAt [ "args" ] device) |> ignore
              Expect.equal options.TunName "lightway" "it has a device to prepare"

              for port in [ "containerPort"; "hostPort" ] do
                  Expect.equal (valueAt [ "ports"; "0"; port ] server) (string options.BindAddress.Port) port

              for path in [ [ "runAsUser" ]; [ "runAsGroup" ] ] do
                  Expect.equal (valueAt ("securityContext" :: path) server) imageUser.Value "the image's user"

              Expect.equal (valueAt [ "securityContext"; "fsGroup" ] pod) imageUser.Value "whose files these are"
              Expect.equal (valueAt [ "securityContext"; "readOnlyRootFilesystem" ] server) "true" ""
              Expect.equal (valueAt [ "securityContext"; "capabilities"; "drop"; "0" ] server) "ALL" ""

              for container in [ at [ "initContainers"; "0" ] pod; server ] do
                  Expect.equal (valueAt [ "image" ] container) $"lightway-server:{version.Value}" "image"

              // Each mount has a volume, and the files of the configuration lie in one.
              let mountsOf container =
                  [ for entry in (at [ "volumeMounts" ] container :?> YamlSequenceNode).Children ->
                        valueAt [ "name" ] entry, valueAt [ "mountPath" ] entry ]

              let mounts = mountsOf server
              Expect.equal (mountsOf device) [ "config", configFile ] "what the set-up reads"
              Expect.contains mounts ("config", configFile) "is what the server reads"

              let volumes =
                  [ for entry in (at [ "volumes" ] pod :?> YamlSequenceNode).Children -> valueAt [ "name" ] entry ]

              Expect.equal (List.sort (List.map fst mounts)) (List.sort volumes) "volumes"

              for file in [ options.ServerCert; options.ServerKey; options.UserDb ] do
                  Expect.contains (List.map snd mounts) (Path.GetDirectoryName file) file
          }

          test "Compose: the host is prepared for the file that init writes" {
              let services =
                  at [ "services" ] (List.exactlyOne (documents "container/compose.yaml"))

              let device = at [ "device" ] services

              match valuesAt [ "entrypoint" ] device with
              | [ "/bin/sh"; "-c"; script ] ->
                  let command = script.Split(" && ")[0]
                  Expect.stringStarts command "lightway-server " "the program"
                  expectSetUp configFile (List.tail (List.ofArray (command.Split ' '))) |> ignore
              | other -> failtestf "%A" other

              let folder = Directory.CreateTempSubdirectory "lightway-tests-"

              try
                  let directory = Path.Combine(folder.FullName, "new")

                  Shell.run (Programs.OfThisBuild().Server) [ "init"; directory; "--address"; "192.0.2.1:27690" ]
                  |> ignore

                  let options =
                      serverOptions (File.ReadAllText(Path.Combine(directory, "server.yaml")))

                  let port = options.BindAddress.Port
                  Expect.equal (valueAt [ "ports"; "0" ] device) $"{port}:{port}/udp" "port"
              finally
                  folder.Delete true

              let server = at [ "server" ] services
              Expect.equal (valueAt [ "user" ] server) $"{imageUser.Value}:{imageUser.Value}" "the image's user"
              Expect.equal (valueAt [ "cap_drop"; "0" ] server) "ALL" ""
              Expect.equal (valueAt [ "read_only" ] server) "true" ""

              for service in [ device; server ] do
                  Expect.equal (valuesAt [ "volumes" ] service) [ "./lightway:/etc/lightway:ro" ] "the file"
                  Expect.equal (valueAt [ "image" ] service) $"lightway-server:{version.Value}" "image"
          }

          test "the container file copies a package that is made, and its version is this one" {
              Expect.stringContains containerFile.Value $"ARG VERSION={version.Value}\n" "version"
              Expect.stringContains containerFile.Value $"useradd --system --uid {imageUser.Value} " "the user's id"
              Expect.isTrue (Regex.IsMatch(containerFile.Value, @"(?m)useradd [^&\n]* lightway$")) "and name"
              let name = $"lightway-server_{version.Value}_{architecture}.deb"
              Expect.equal (Path.GetFileName(package "server")) name "as COPY names it"
              Expect.stringContains containerFile.Value "COPY lightway-server_${VERSION}_${TARGETARCH}.deb" ""
          } ]

let tests: Test =
    testSequenced (testList "Deploy" [ installed; devices; bills; containers ])

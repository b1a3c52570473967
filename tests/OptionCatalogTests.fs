/// What is made of the definitions of the options: the configuration file with all of them, its schema, and the report of
/// `--check-config`.
module Lightway.Tests.OptionCatalogTests

open System
open System.IO
open System.Net
open System.Text.Json
open System.Text.Json.Nodes
open System.Text.RegularExpressions
open Expecto
open FsCheck
open FsCheck.FSharp
open Json.Schema
open YamlDotNet.RepresentationModel
open Lightway.Options
open Lightway.Server.Setup
open Lightway.Tests.OptionRuns
open Lightway.Tests.ServerOptionsTests
open Lightway.Tests.ClientOptionsTests

/// One of the two programs, as far as these tests know it.
[<NoComparison; NoEquality>]
type private Subject =
    {
        Name: string
        Names: OptionNames
        Options: OptionInfo list
        /// `--generate WHAT`.
        Generate: string -> string
        /// `--check-config` with the flags that are needed and this file.
        Check: string -> string
        /// Flags without which nothing starts.
        Needed: string list
    }

let private noVariables = Func<string, string | null>(fun _ -> null)

let private noFile =
    Func<string, string>(fun path -> raise (FileNotFoundException path))

let private printed (outcome: ParseOutcome<'Options>) =
    Expect.equal outcome.Kind OutcomeKind.Help "it is printed"
    outcome.Text

let private serverSubject =
    { Name = "lightway-server"
      Names = ServerReading.names
      Options = Catalog.options ServerProgram.program
      Generate = fun what -> printed (ServerOptions.Parse([| "--generate"; what |], noVariables, noFile))
      Check = fun yaml -> (server [ "--check-config"; "--user-db=users" ] [] yaml).Text
      Needed = [ "--user-db=users" ] }

let private clientSubject =
    { Name = "lightway-client"
      Names = ClientReading.names
      Options = Catalog.options ClientProgram.program
      Generate = fun what -> printed (ClientOptions.Parse([| "--generate"; what |], noVariables, noFile))
      Check =
        fun yaml ->
            (client [ "--check-config"; "--server=vpn.example.com:27690"; "--user=me"; "--password=secret" ] [] yaml)
                .Text
      Needed = [ "--server=vpn.example.com:27690"; "--user=me"; "--password=secret" ] }

let private subjects = [ serverSubject; clientSubject ]

/// The keys of a program but for the one that says where the file is.
let private keysOf (subject: Subject) : Set<string> =
    Set(Seq.append subject.Names.Keys.Values subject.Names.FileOnly.Keys) |> Set.remove "config_file"

/// The file that `--generate yaml` writes with the mark in front of each key removed.
let private uncommented (template: string) : string =
    Regex.Replace(template, "(?m)^#(?=[a-z0-9_]+:)", "")

/// A YAML document as JSON: the scalars of YAML 1.2's core schema.
let rec private json (node: YamlNode) : JsonNode | null =
    match node with
    | :? YamlMappingNode as map ->
        let made = JsonObject()

        for entry in map.Children do
            made.Add(string entry.Key, json entry.Value)

        made
    | :? YamlSequenceNode as items -> JsonArray [| for item in items.Children -> json item |]
    | :? YamlScalarNode as scalar ->
        let text = string scalar.Value

        if scalar.Style <> YamlDotNet.Core.ScalarStyle.Plain then
            JsonValue.Create text
        else
            match text with
            | ""
            | "~"
            | "null" -> null
            | "true" -> JsonValue.Create true
            | "false" -> JsonValue.Create false
            | digits when Regex.IsMatch(digits, @"^-?\d+$") -> JsonValue.Create(Int64.Parse digits)
            | digits when Regex.IsMatch(digits, @"^-?\d+\.\d+$") -> JsonValue.Create(Double.Parse digits)
            | text -> JsonValue.Create text
    | other -> failtestf "%A" other

let private jsonOf (yaml: string) : JsonElement =
    let stream = YamlStream()
    stream.Load(new StringReader(yaml))

    let node =
        if stream.Documents.Count = 0 then
            null
        else
            json stream.Documents[0].RootNode

    match node with
    | null -> JsonDocument.Parse("null").RootElement
    | node -> JsonDocument.Parse(node.ToJsonString()).RootElement

let private problems (schema: JsonSchema) (yaml: string) : string list =
    let results =
        schema.Evaluate(jsonOf yaml, EvaluationOptions(OutputFormat = OutputFormat.List))

    if results.IsValid then
        []
    else
        [ for detail in results.Details do
              match detail.Errors with
              | null -> ()
              | errors ->
                  for error in errors do
                      $"{detail.InstanceLocation}: {error.Value}" ]

let private schemaOf =
    let schemas =
        lazy Map [ for subject in subjects -> subject.Name, JsonSchema.FromText(subject.Generate "jsonschema") ]

    fun (subject: Subject) -> schemas.Value[subject.Name]

let private init directory : InitOptions =
    { SetUps.options directory "vpn.example.com" 4433 with
        User = "me \"#1\" \\"
        ServerName = "gateway.example.com"
        IpPool = IPNetwork.Parse "10.7.0.0/20" }

let private setUp (name: string) : string =
    SetUpFiles.All(init "/etc/lightway", "/etc/lightway", null, DateTimeOffset.UnixEpoch)
    |> Seq.find (fun file -> file.Name = name)
    |> _.Text

let private lineOf (report: string) (key: string) : string =
    report.Split '\n'
    |> Array.filter _.StartsWith(key + ": ")
    |> Array.tryExactlyOne
    |> fun line -> Expect.wantSome line $"one line for {key}"

let private catalog =
    testList
        "Catalog"
        [ for subject in subjects do
              test $"{subject.Name}: every key is read by the program, and so has a shape and a default" {
                  let known = Set [ for option in subject.Options -> option.Key ]
                  Expect.equal known (keysOf subject) "keys"
                  Expect.equal known.Count subject.Options.Length "each once"

                  for option in subject.Options do
                      Expect.isNotEmpty option.Help $"{option.Key} has a sentence"
                      Expect.isNotEmpty option.Group $"{option.Key} has a group"
              }

              test $"{subject.Name}: a default that the help page names is the one that is in use" {
                  let mutable compared = 0

                  for option in subject.Options do
                      let said = Regex.Match(option.Help, @" Default: (.+)\.$").Groups[1].Value
                      let isNothing = said.StartsWith "none" || said.StartsWith "the kernel"

                      if isNothing then
                          let nothing = [ Node.Absent; Node.Scalar "" ]
                          Expect.contains nothing option.Default $"{option.Key} has no default"
                      elif said <> "" then
                          let value (yaml: string) =
                              (lineOf (subject.Check yaml) option.Key).Split("   # ")[0]

                          Expect.equal (value $"{option.Key}: '{said}'") (value "") option.Key
                          compared <- compared + 1

                  Expect.isGreaterThan compared 30 "defaults"
              } ]

let private template =
    testList
        "Generated file"
        [ for subject in subjects do
              let text = subject.Generate "yaml"

              test $"{subject.Name}: it has every option once, commented out, and no other line" {
                  let keys =
                      [ for found in Regex.Matches(text, "(?m)^#([a-z0-9_]+):") -> found.Groups[1].Value ]

                  let shown =
                      [ for option in subject.Options do
                            if not option.IsHidden then
                                option.Key ]

                  Expect.equal keys shown "keys, in the order of the help page"

                  for line in text.Split '\n' do
                      Expect.isTrue (line = "" || line.StartsWith '#') line
                      Expect.isLessThanOrEqual line.Length 200 "a line that fits"
              }

              test $"{subject.Name}: as it is, it is a file without options" {
                  Expect.isEmpty (Expect.wantOk (Yaml.parse "x" text) "YAML") "settings"
              }

          test "lightway-server: with all marks removed, it gives the same options, without a warning" {
              let text = uncommented (serverSubject.Generate "yaml")
              let outcome = server serverSubject.Needed [] text
              Expect.equal (run outcome) (run (server serverSubject.Needed [] "")) "options"
              Expect.isEmpty outcome.Warnings "warnings"
              Expect.isGreaterThan (Expect.wantOk (Yaml.parse "x" text) "YAML").Length 50 "settings"
          }

          test "lightway-client: with all marks removed, it gives the same options" {
              let text = uncommented (clientSubject.Generate "yaml")
              Expect.equal (run (client clientSubject.Needed [] text)) (run (client clientSubject.Needed [] "")) ""
              Expect.isGreaterThan (Expect.wantOk (Yaml.parse "x" text) "YAML").Length 50 "settings"
          }

          test "with --config-file it is to be written to that file" {
              let outcome =
                  ServerOptions.Parse([| "--generate"; "yaml"; "-c"; "new.yaml" |], noVariables, noFile)

              Expect.equal (outcome.Kind, outcome.File) (OutcomeKind.Write, "new.yaml") ""
              Expect.stringContains outcome.Text "\n#mode: tcp\n" ""
          }

          test "another word is one clear error" {
              let outcome = ClientOptions.Parse([| "--generate=toml" |], noVariables, noFile)
              expectAll (refusal outcome) [ "generate"; "\"toml\""; "yaml, jsonschema"; "flag --generate" ]
          } ]

/// Files that programs start with, whatever the set-up.
let private valid (subject: Subject) : (string * string) list =
    let all = subject.Generate "yaml"

    [ "the generated file", all
      "the generated file without marks", uncommented all
      "nothing", ""
      if subject.Name = "lightway-server" then
          "that of init", setUp "server.yaml"

          "one of all keys",
          "mode: both\nip_map: {192.0.2.1: 10.9.8.16/28}\n"
          + String.concat
              ""
              [ for key, value, _ in serverKeys do
                    if key <> "ip_map" then
                        $"{key}: {value}\n" ]

          "other spellings",
          "udp_buffer_size: 1.5 MiB\nworkers: 0x2\nkey_update_interval: 1h 30 min\nsession_idle_limit: 2 days\ngso_max_burst: 0\nbind_address: \"[::1]:1\"\nproxy_protocol_from: [10.0.0.0/8, '::1']\nip_map: a file\n"
              .Replace("0x2", "2")
      else
          "that of init", setUp "client.yaml"
          "credentials of digits", "user: 123\npassword: 4.5\nca_cert: |\n  -----BEGIN CERTIFICATE-----\n"
          "a list of servers", "servers:\n  - server: a.example:1\n    outside_mtu: 1400\nserver: '[2001:db8::1]:7'\n" ]

let private schema =
    testList
        "Schema"
        [ for subject in subjects do
              test $"{subject.Name}: it is one of draft 2020-12, and describes every key" {
                  let text = subject.Generate "jsonschema"
                  let element = JsonDocument.Parse(text).RootElement
                  let meta = MetaSchemas.Draft202012.Evaluate element
                  Expect.isTrue meta.IsValid "the schema of schemas accepts it"

                  Expect.equal
                      (element.GetProperty("$schema").GetString())
                      "https://json-schema.org/draft/2020-12/schema"
                      ""

                  let properties = element.GetProperty "properties"

                  for option in subject.Options do
                      for name in option.Key :: option.Aliases do
                          let described, property = properties.TryGetProperty name
                          Expect.isTrue described name
                          Expect.equal (property.GetProperty("description").GetString()) option.Help name
              }

              for name, yaml in valid subject do
                  test $"{subject.Name}: it accepts {name}" {
                      Expect.isEmpty (problems (schemaOf subject) yaml) "what is wrong"
                  }

              test $"{subject.Name}: every default has the shape that the schema gives the option" {
                  for option in subject.Options do
                      let line = $"{option.Key}: {YamlText.value option.Shape option.Default}"
                      Expect.isEmpty (problems (schemaOf subject) line) line
              }

          for line in
              [ "mode: quic"
                "tun_nam: a"
                "workers: 65"
                "workers: -1"
                "workers: 1.5"
                "half_open_limit: many"
                "enable_pqc: maybe"
                "bind_address: 27690"
                "bind_address: 0.0.0.0"
                "ip_pool: 10.0.0.0"
                "lightway_client_ip: fe80::1"
                "key_update_interval: 5"
                "key_update_interval: 5 parsecs"
                "udp_buffer_size: 0"
                "udp_buffer_size: 15 MiBs"
                "tun_name: sixteencharacter"
                "log_level: loud"
                "proxy_protocol_from: []"
                "proxy_protocol_from: [everybody]"
                "ip_map: {x: 10.0.0.0/8}"
                "ip_map: {192.0.2.1: 7}"
                "server_cert: [a]" ] do
              test $"lightway-server: it refuses {line}, as the program does" {
                  Expect.isNonEmpty (problems (schemaOf serverSubject) line) "a problem"
                  refusal (server [ "--user-db=users" ] [] line) |> ignore
              }

          for line in [ "mode: both"; "servers: [a]"; "servers: [{sever: a}]"; "cipher: rc4"; "outside_mtu: 67" ] do
              test $"lightway-client: it refuses {line}, as the program does" {
                  Expect.isNonEmpty (problems (schemaOf clientSubject) line) "a problem"
                  refusal (client clientSubject.Needed [] line) |> ignore
              } ]

/// The report of a server with these layers.
let private checkServer flags variables yaml =
    let outcome = server ("--check-config" :: flags) variables yaml

    if outcome.Kind <> OutcomeKind.Check then
        failtestf "not checked: %s" outcome.Text

    outcome

let private report =
    testList
        "Report"
        [ test "it has one line for each option, with value and source" {
              let outcome =
                  checkServer
                      [ "--workers=3"; "--log-level"; "debug" ]
                      [ "TUN_NAME", "true"; "KEY_UPDATE_INTERVAL", "90 min" ]
                      (least + "ip_map: {192.0.2.1: 10.125.1.0/24}\nudp_buffer_size: 64kib\n")

              for key, line in
                  [ "mode", "mode: udp   # config.yaml:1"
                    "user_db", "user_db: ./users   # config.yaml:2"
                    "ip_map", "ip_map: {192.0.2.1: 10.125.1.0/24}   # config.yaml:3"
                    "udp_buffer_size", "udp_buffer_size: 64 KiB   # config.yaml:4"
                    "workers", "workers: 3   # flag --workers"
                    "log_level", "log_level: debug   # flag --log-level"
                    "tun_name", "tun_name: \"true\"   # environment variable LW_SERVER_TUN_NAME"
                    "key_update_interval",
                    "key_update_interval: 1h 30m   # environment variable LW_SERVER_KEY_UPDATE_INTERVAL"
                    "bind_address", "bind_address: \"0.0.0.0:27690\"   # default"
                    "proxy_protocol_from", "proxy_protocol_from: [0.0.0.0/0, \"::/0\"]   # default"
                    "tun_ip", "tun_ip: null   # default" ] do
                  Expect.equal (lineOf outcome.Text key) line ""

              for key in keysOf serverSubject do
                  lineOf outcome.Text key |> ignore

              let lines = outcome.Text.Split '\n'
              Expect.equal lines.Length (1 + (keysOf serverSubject).Count) "and one that names the file"
              Expect.stringContains lines[0] "config.yaml" ""
          }

          test "the level that RUST_LOG sets is shown with that variable" {
              let outcome = checkServer [] [ "RUST_LOG", "trace" ] least
              let line = "log_level: trace   # environment variable LW_SERVER_RUST_LOG"
              Expect.equal (lineOf outcome.Text "log_level") line ""
          }

          testProperty "a file that consists of it gives the same options, whatever set them"
          <| fun (choices: (NonNegativeInt * int) list) ->
              let chosen =
                  [ for NonNegativeInt index, layer in choices ->
                        let key, value, _ = serverKeys[index % serverKeys.Length]
                        key, value, abs (layer % 3) ]
                  |> List.distinctBy (fun (key, _, _) -> key)

              let of' layer =
                  [ for key, value, other in chosen do
                        if other = layer then
                            key, value ]

              let needed =
                  if List.exists (fun (key, _, _) -> key = "user_db") chosen then
                      "mode: udp\n"
                  else
                      least

              let yaml =
                  needed + String.concat "" [ for key, value in of' 0 -> $"{key}: {value}\n" ]

              let variables = [ for key, value in of' 1 -> key.ToUpperInvariant(), value ]
              let flags = [ for key, value in of' 2 -> $"{flagOf key}={value}" ]
              let outcome = checkServer flags variables yaml
              let again = server [] [] outcome.Text
              run again = outcome.Options && again.Warnings.Count = 0

          test "a file that has every key is reported so that it gives the same options" {
              let yaml =
                  least.Replace("user_db: ./users\n", "")
                  + String.concat "" [ for key, value, _ in serverKeys -> $"{key}: {value}\n" ]

              let outcome = checkServer [] [] yaml
              Expect.equal (run (server [] [] outcome.Text)) outcome.Options ""
              Expect.equal outcome.Options (run (server [] [] yaml)) "the options are those of a start"
          }

          test "a secret, or the text of a PEM file, is not in it" {
              let yaml =
                  "mode: udp\nserver: a.example:1\nuser: me\npassword: s3cret\nca_cert: |\n  -----BEGIN CERTIFICATE-----\n  QUJD\n"

              let outcome = client [ "--check-config"; "--token"; "t0ken" ] [] yaml
              Expect.equal outcome.Kind OutcomeKind.Check ""

              for secret in [ "s3cret"; "t0ken"; "QUJD"; "BEGIN" ] do
                  Expect.isFalse (outcome.Text.Contains secret) secret

              Expect.equal (lineOf outcome.Text "password") "password: \"(hidden)\"   # config.yaml:4" ""
              Expect.equal (lineOf outcome.Text "token") "token: \"(hidden)\"   # flag --token" ""
          }

          test "the entry of the servers that is used is shown under the options' own names" {
              let yaml =
                  "mode: udp\nservers:\n  - server: a.example:1\n    user: me\n    password: s3cret\n"

              let outcome = client [ "--check-config" ] [] yaml
              Expect.equal (lineOf outcome.Text "server") "server: \"a.example:1\"   # config.yaml:3" ""
              Expect.equal (lineOf outcome.Text "user") "user: me   # config.yaml:4" ""
              Expect.isFalse (outcome.Text.Contains "s3cret") ""
          }

          test "several servers are shown each with all that its entry may say, and as a file give the same options" {
              let yaml =
                  "mode: udp\nserver_dn: above\nuser: 'null'\npassword: s3cret\nservers:\n"
                  + "  - server: a.example:1\n    server_dn: first\n  - server: b.example:2\n    mode: tcp\n    user: other\n    password_file: pw\n"
                  + "  - server: c.example:3\n    token: t0ken\n"

              let outcome = client [ "--check-config" ] [] yaml
              Expect.equal outcome.Kind OutcomeKind.Check ""

              for secret in [ "s3cret"; "t0ken" ] do
                  Expect.isFalse (outcome.Text.Contains secret) secret

              let withSecrets =
                  outcome.Text
                      .Replace("password: \"(hidden)\"", "password: s3cret")
                      .Replace("token: \"(hidden)\"", "token: t0ken")

              let again = client [] [] withSecrets
              Expect.equal (run again) outcome.Options withSecrets
              Expect.isEmpty again.Warnings "warnings"
              Expect.equal outcome.Options (run (client [] [] yaml)) "the options are those of a start"
          }

          test "a file that has every key of the client is reported so that it gives the same options" {
              let yaml =
                  leastClient + String.concat "" [ for key, value, _ in clientKeys -> $"{key}: {value}\n" ]

              let outcome = client [ "--check-config" ] [] yaml
              let again = outcome.Text.Replace("\"(hidden)\"", "secret")
              Expect.equal (run (client [] [] again)) outcome.Options again
              Expect.equal outcome.Options (run (client [] [] yaml)) "the options are those of a start"

              for key, _, _ in clientKeys do
                  Expect.stringContains (lineOf outcome.Text key) "   # config.yaml:" key
          }

          test "what cannot start is refused, and nothing else is said" {
              expectAll (refusal (server [ "--check-config"; "--workers=65" ] [] least)) [ "workers"; "0 to 64" ]
              expectAll (refusal (server [ "--check-config" ] [] (least + "a: 1"))) [ "a: not a known option" ]
          }

          test "a control character of a value or a path does not break a line" {
              let argv =
                  [| "--check-config"; "-c"; "a\nb"; "--server-dn=x\ny"; "--ca-cert=c\u0001" |]

              let outcome =
                  ClientOptions.Parse(argv, noVariables, Func<_, _>(fun _ -> leastClient))

              Expect.equal (outcome.Text.Split('\n').Length) (1 + (keysOf clientSubject).Count) "lines"
              Expect.equal (lineOf outcome.Text "server_dn") "server_dn: \"x\\ny\"   # flag --server-dn" ""
          } ]

/// `Show` and the schema's pattern against the parser, for every value of a generator.
let private shown (name: string) (parser: Parser<'T>) (values: Gen<'T>) =
    testProperty $"{name}: what is shown parses to the same value, in YAML too, and the schema accepts it"
    <| Prop.forAll (Arb.fromGen values) (fun value ->
        let text = parser.Show value
        let line = $"a: {YamlText.value parser.Shape (Node.Scalar text)}"

        let info =
            { Key = "a"
              Aliases = []
              Shape = parser.Shape
              Default = Node.Absent
              Help = "a"
              Group = "a"
              IsHidden = false }

        let schema = JsonSchema.FromText(JsonSchema.generate "a" [ info ])

        let inYaml =
            match Yaml.parse "x" line with
            | Ok [ { Node = Node.Scalar text } ] -> parser.Parse text = Ok value
            | _ -> false

        parser.Parse text = Ok value && inYaml && List.isEmpty (problems schema line))

let private values =
    let address =
        Gen.map (fun (bytes: byte[]) -> IPAddress bytes) (Gen.arrayOfLength 4 (Gen.map byte (Gen.choose (0, 255))))

    let wide =
        Gen.map (fun (bytes: byte[]) -> IPAddress bytes) (Gen.arrayOfLength 16 (Gen.map byte (Gen.choose (0, 255))))

    let port = Gen.choose (1, 65535)

    let parsed (parser: Parser<'T>) (texts: Gen<string>) =
        Gen.map (fun text -> Expect.wantOk (parser.Parse text) text) texts

    let network (address: Gen<IPAddress>) (low: int) (high: int) =
        Gen.map2 (fun (address: IPAddress) (length: int) -> $"{address}/{length}") address (Gen.choose (low, high))

    testList
        "Values shown"
        [ shown
              "duration"
              Value.duration
              (Gen.map
                  (fun (a, b) -> TimeSpan.FromTicks(int64 a * int64 b))
                  (Gen.zip (Gen.choose (0, 1_000_000)) (Gen.elements [ 1; 10; 10_000; 600_000_000 ])))
          shown
              "size"
              Value.byteSize
              (Gen.oneof [ Gen.choose (1, Int32.MaxValue); Gen.map (fun n -> n <<< 20) (Gen.choose (1, 2047)) ])
          shown "bool" Value.boolean (Gen.elements [ true; false ])
          shown "number" (Value.number -5L 500L) (Gen.map int64 (Gen.choose (-5, 500)))
          shown "IPv4" Value.ipv4 address
          shown
              "address and port"
              Value.endPoint
              (Gen.map2 (fun (address: IPAddress) port -> IPEndPoint(address, port)) (Gen.oneof [ address; wide ]) port)
          shown
              "host and port"
              Value.hostPort
              (parsed
                  Value.hostPort
                  (Gen.map2
                      (fun host port -> $"{host}:{port}")
                      (Gen.elements [ "a"; "vpn.example.com"; "192.0.2.1"; "[2001:db8::1]" ])
                      port))
          shown "IPv4 network" (Value.ipv4Network 8 30) (parsed (Value.ipv4Network 8 30) (network address 8 30))
          shown "network" Value.network (parsed Value.network (Gen.oneof [ network address 0 32; network wide 0 128 ]))
          shown "mode" Value.serverMode (Gen.elements [ TransportMode.Tcp; TransportMode.Udp; TransportMode.Both ])
          shown
              "text"
              Value.text
              (Gen.map
                  (fun (text: string | null) ->
                      match text with
                      | null -> ""
                      | text -> text)
                  (ArbMap.defaults |> ArbMap.generate<string>)
               |> Gen.where (fun text -> not (Seq.exists Char.IsSurrogate text)))
          shown
              "interface name"
              Value.interfaceName
              (Gen.elements
                  [ "lightway"; "tun0"; "007"; "true"; "null"; "-"; "a:b"; "#x"; "~"; "{"; "*"; "!"; "1.5"; "1e3" ]) ]

let tests: Test = testList "Catalog" [ catalog; template; schema; report; values ]

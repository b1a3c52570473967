/// What the programs print: help pages and version, and the command `init`.
module Lightway.Tests.OptionPagesTests

open System
open Expecto
open Lightway.Options
open Lightway.Tests.OptionRuns
open Lightway.Tests.ClientOptionsTests
open Lightway.Tests.ServerOptionsTests

let tests: Test =
    let page argv =
        let outcome =
            ServerOptions.Parse(Array.ofList argv, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

        outcome.Kind, outcome.Text

    testList
        "Pages"
        [ test "the help page has every flag with its default, and fits 100 columns" {
              let kind, text = page [ "--help" ]
              Expect.equal kind OutcomeKind.Help ""

              for key in
                  [ for key, _, _ in serverKeys -> key ]
                  @ [ for key, _, _ in serverNotServed @ serverAccepted -> key ]
                  @ [ "proxy_protocol"; "proxy_protocol_from" ] do
                  Expect.stringContains text (flagOf key) ""

              for fallback in
                  [ "27690"; "15 MiB"; "./server.crt"; "10.125.0.0/16"; "10.125.0.5"; "15m"; "1m"; "30s"; "1024" ] do
                  Expect.stringContains text fallback ""

              let longest = text.Split '\n' |> Seq.map String.length |> Seq.max
              Expect.isLessThan longest 116 "the two lines of prose may be a little longer"
          }

          test "offload has a group of its own, with all its flags, in both programs" {
              let flags =
                  [ for key, _, _ in clientKeys do
                        if key = "enable_tun_offload" || key.StartsWith "gso_" || key.StartsWith "disable_" then
                            flagOf key ]

              Expect.equal flags.Length 8 "flags of offload"

              let clientPage =
                  (ClientOptions.Parse([| "--help" |], Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))).Text

              for text, title, flags in
                  [ clientPage, "  Offload", flags
                    snd (page [ "--help" ]), "  Offload and workers", flags @ [ "--workers"; "--pin-workers" ] ] do
                  let lines = Array.toList (text.Split '\n')
                  // A heading is indented by two columns, a flag by more.
                  let isHeading (line: string) =
                      line.Length > 2 && line.StartsWith "  " && Char.IsUpper line[2]

                  let group =
                      lines |> List.skipWhile ((<>) title) |> List.skip 1 |> List.takeWhile (isHeading >> not)

                  for flag in flags do
                      let begins (line: string) =
                          line.TrimStart().StartsWith(flag + " ", StringComparison.Ordinal)

                      Expect.exists group begins $"{flag} is listed under {title}"

              Expect.stringContains clientPage "--metrics-file" ""
          }

          test "init has a page of its own" {
              let kind, text = page [ "init"; "--help" ]
              Expect.equal kind OutcomeKind.Help ""
              expectAll text [ "--address"; "--server-name"; "--ip-pool"; "<dir>" ]
          }

          test "reset is a command of the client's, on its help page, and needs no configuration" {
              let parse argv =
                  ClientOptions.Parse(Array.ofList argv, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

              Expect.equal (parse [ "reset" ]).Kind OutcomeKind.Reset ""

              expectAll
                  (parse [ "--help" ]).Text
                  [ "lightway-client reset"; "Commands"; "--kill-switch"; "--allow-ipv6-outside" ]

              expectAll (refusal (parse [ "rest" ])) [ "rest" ]
          }

          test "status and reset are commands of the client's, for manual page and completions" {
              let commands = (Catalog.command ClientProgram.program).Commands
              Expect.equal [ for command in commands -> command.Name ] [ "status"; "reset" ] "commands"

              for command in commands do
                  Expect.isNotEmpty command.Help command.Name

              let status = commands.Head
              let names = status.Flags |> List.collect _.Names |> List.filter _.StartsWith("--")
              Expect.equal (set names) (set [ "--control-socket"; "--json"; "--help" ]) "flags of status"

              let generate what =
                  ClientOptions.Parse([| "--generate"; what |], Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

              for what in [ "man"; "bash"; "zsh"; "fish" ] do
                  let text = (generate what).Text

                  for command in commands do
                      Expect.isTrue
                          (Text.RegularExpressions.Regex.IsMatch(text, $@"\b{command.Name}\b"))
                          $"{what}: {command.Name}"
          }

          test "the version is one line" {
              let kind, text = page [ "--version" ]
              Expect.equal kind OutcomeKind.Version ""
              Expect.stringStarts text "lightway-server " ""
          }

          test "init reads its flags, and names what is wrong with them" {
              let parse argv =
                  ServerOptions.Parse(Array.ofList ("init" :: argv), Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

              let init = (parse [ "dir"; "--address"; "[::1]:99"; "--user=x" ]).Init
              Expect.equal (init.Directory, init.ServerHost, init.ServerPort, init.User) ("dir", "::1", 99, "x") ""
              expectAll (refusal (parse [])) [ "init"; "DIR" ]
              expectAll (refusal (parse [ "dir"; "--user=a:b" ])) [ "user"; "a:b" ]
              expectAll (refusal (parse [ "dir"; "--ip-pool=10.0.0.0/29" ])) [ "ip-pool"; "/8 to /28" ]
              expectAll (refusal (parse [ "dir\n" ])) [ "directory" ]
          } ]

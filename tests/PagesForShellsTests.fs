/// Manual pages and completions, judged by the programs that read them: man, mandoc, bash, zsh and fish.
module Lightway.Tests.PagesForShellsTests

open System
open System.Collections.Concurrent
open System.IO
open System.Text.RegularExpressions
open Expecto
open Lightway.Lab
open Lightway.Options
open Lightway.Tests.Checks

/// A program and what is known about its command line.
let private subjects =
    [ lazy Programs.OfThisBuild().Server, Catalog.command ServerProgram.program
      lazy Programs.OfThisBuild().Client, Catalog.command ClientProgram.program ]

let private generated = ConcurrentDictionary<struct (string * string), string>()

let private generate (program: Lazy<string>) (what: string) : string =
    let run () =
        let struct (code, output, error) = Shell.tryRun program.Value [ "--generate"; what ]
        Expect.equal (code, error) (0, "") $"--generate {what}"
        output

    generated.GetOrAdd(struct (program.Value, what), fun _ -> run ())

/// Runs `body` with a file that has this text.
let private withFile (text: string) (body: string -> 'Result) : 'Result =
    let file = Path.GetTempFileName()

    try
        File.WriteAllText(file, text)
        body file
    finally
        File.Delete file

let private shown (command: CommandInfo) =
    command.Flags |> List.filter (fun flag -> not flag.IsHidden)

let private longNames (command: CommandInfo) : Set<string> =
    Set
        [ for flag in shown command do
              for name in flag.Names do
                  if name.StartsWith "--" then
                      name ]

/// Output of a shell that has loaded the completions; nothing may go to standard error.
let private shell (program: string) (arguments: string list) : string =
    let struct (code, output, error) = Shell.tryRun program arguments
    Expect.equal (code, error) (0, "") $"{program}\n{output}"
    output

let private words (text: string) : Set<string> =
    Set(text.Split([| ' '; '\n'; '\t'; '\r' |], StringSplitOptions.RemoveEmptyEntries))

let private manual =
    testList
        "Manual page"
        [ for program, info in subjects do
              test $"{info.Name}: man and mandoc read it without a warning" {
                  needsProgram "man"
                  needsProgram "mandoc"

                  withFile (generate program "man") (fun file ->
                      let script = $"MANWIDTH=100 man --warnings -l {file} 2>&1 >/dev/null"
                      Expect.equal (shell "sh" [ "-c"; script ]) "" "man"
                      let struct (_, problems, error) = Shell.tryRun "mandoc" [ "-Tlint"; "-Wall"; file ]
                      Expect.equal (problems + error) "" "mandoc")
              }

              test $"{info.Name}: it shows every flag with its value, and every command with its flags" {
                  needsProgram "mandoc"

                  let page =
                      withFile (generate program "man") (fun file ->
                          Regex.Replace(shell "mandoc" [ "-Tascii"; "-Owidth=200"; file ], ".\b", ""))

                  for command in info :: info.Commands do
                      for flag in shown command do
                          let value =
                              match flag.Value with
                              | None -> ""
                              | Some value when flag.IsValueOptional -> $" [{value}]"
                              | Some value -> $" {value}"

                          let names = String.concat ", " flag.Names
                          // A short one shares its line with the sentence.
                          let head = Regex.Escape $"\n       {names}{value}"
                          Expect.isTrue (Regex.IsMatch(page, head + "[ \n]")) $"{names}{value}"

                  for command in info.Commands do
                      Expect.stringContains page $"\n   {command.Name}\n" "a command"

                  Expect.stringContains page "EXIT STATUS" ""
              } ]

/// Completes a line in bash the way readline does: by the function that `complete` knows.
let private bashScript (file: string) (name: string) (line: string list) =
    let quoted = [ for word in line -> $"'{word}'" ] |> String.concat " "

    $"source {file}\ncomplete -p {name} >/dev/null || exit 1\nfunction=$(complete -p {name} | sed -E 's/.*-F ([^ ]+) .*/\\1/')\nCOMP_WORDS=({quoted})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n$function\nprintf '%%s\\n' \"${{COMPREPLY[@]}}\"\n"

let private bash =
    testList
        "bash"
        [ for program, info in subjects do
              let complete (line: string list) : Set<string> =
                  withFile (generate program "bash") (fun file ->
                      words (shell "bash" [ "--norc"; "-c"; bashScript file info.Name (info.Name :: line) ]))

              test $"{info.Name}: every flag is offered, of every command" {
                  Expect.equal (complete [ "--" ]) (longNames info) "of the program"

                  for command in info.Commands do
                      Expect.equal (complete [ command.Name; "--" ]) (longNames command) command.Name

                  let names = Set [ for command in info.Commands -> command.Name ]
                  Expect.isTrue (Set.isSubset names (complete [ "" ])) "the commands themselves"
              }

              test $"{info.Name}: what a flag takes is offered behind it, with a blank or =" {
                  for flag, expected in
                      [ "--generate", set Catalog.generated
                        "--enable-expresslane", set [ "true"; "false" ]
                        "--log-level", set [ "trace"; "debug"; "info"; "warn"; "error"; "off" ] ] do
                      Expect.equal (complete [ flag; "" ]) expected flag
                      Expect.equal (complete [ flag; "="; "" ]) expected flag
                      Expect.equal (complete [ flag; "=" ]) expected flag

                  Expect.equal
                      (complete [ "--config-file"; "/etc/passw" ])
                      (set [ "/etc/passwd" ] + complete [ "-c"; "/etc/passw" ])
                      "files"

                  Expect.equal (complete [ "--tun-name"; "" ]) Set.empty "a name of the operator's"
                  Expect.contains (complete [ "--enable-expresslane"; "--log-l" ]) "--log-level" "the next flag"
              }

          test "--ip- gives the two flags that begin with it" {
              let program, info = subjects.Head

              let found =
                  withFile (generate program "bash") (fun file ->
                      words (shell "bash" [ "--norc"; "-c"; bashScript file info.Name [ info.Name; "--ip-" ] ]))

              Expect.equal found (set [ "--ip-pool"; "--ip-map" ]) ""
          } ]

let private fish =
    testList
        "fish"
        [ for program, info in subjects do
              let complete (line: string) : Set<string> =
                  withFile (generate program "fish") (fun file ->
                      let output =
                          shell "fish" [ "--no-config"; "-c"; $"source {file}; complete -C '{info.Name} {line}'" ]

                      Set
                          [ for line in output.Split('\n', StringSplitOptions.RemoveEmptyEntries) ->
                                (Array.head (line.Split '\t')).TrimEnd('=') ])

              test $"{info.Name}: flags, values and commands are offered" {
                  needsProgram "fish"
                  Expect.equal (complete "--") (longNames info) "flags"

                  Expect.equal
                      (complete "--log-level ")
                      (set [ "trace"; "debug"; "info"; "warn"; "error"; "off" ])
                      "values"

                  let values = set [ "--enable-pmtud=true"; "--enable-pmtud=false" ]
                  Expect.equal (complete "--enable-pmtud=") values "a value that may be left out"

                  for command in info.Commands do
                      Expect.contains (complete "") command.Name "a command"
                      Expect.equal (complete $"{command.Name} --") (longNames command) command.Name
              } ]

/// Types lines in an interactive zsh, each with a tab at its end, and prints what it shows for each, behind a line "=====".
/// Whether all words are there is looked at for half a minute: the shell reads its functions when it completes for the first
/// time.
let private zshScript (file: string) (lines: (string * string list) list) =
    let start =
        $"""zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; stty -echo; autoload -U compinit; compinit -u -D; source {file}; LISTMAX=10000; setopt no_list_ambiguous; bindkey '^I' complete-word; stty rows 400 columns 200; LINES=400; COLUMNS=200; echo rea''dy"
zpty -r shell found '*ready*'
"""

    let complete (line: string, words: string list) =
        $"""zpty -w -n shell $'{line}\t\t'
all=
for i in {{1..600}}; do
  while zpty -r -t shell found; do all+=$found; done
  is_whole=1
  for word in {String.concat " " words}; do [[ $all == *$word* ]] || is_whole=0; done
  (( is_whole )) && break
  sleep 0.05
done
print -r -- "$all
====="
zpty -w -n shell $'\C-uecho all-""shown\n'
zpty -r shell found '*all-shown*'
"""

    start + String.concat "" (List.map complete lines) + "zpty -d shell\n"

let private zsh =
    testList
        "zsh"
        [ for program, info in subjects do
              test $"{info.Name}: flags, values and commands are offered" {
                  needsProgram "zsh"

                  let lines =
                      [ "--e", longNames info |> Set.filter (fun name -> name.StartsWith "--e") |> List.ofSeq
                        "--log-level ", [ "trace"; "debug"; "info"; "warn"; "error"; "off" ]
                        for command in info.Commands do
                            $"{command.Name} --", List.ofSeq (longNames command) ]

                  let typed = [ for line, words in lines -> $"{info.Name} {line}", words ]

                  let struct (_, output, error) =
                      withFile (generate program "zsh") (fun file ->
                          withFile (zshScript file typed) (fun script -> Shell.tryRun "zsh" [ "-f"; script ]))

                  Expect.equal error "" "nothing goes wrong"
                  let shown = Regex.Replace(output, @"\x1b\[[0-9;?]*[A-Za-z]", "").Split("\n=====\n")
                  Expect.equal shown.Length (lines.Length + 1) "all were typed"

                  for (line, words), page in Seq.zip lines shown do
                      for word in words do
                          Expect.stringContains page word line
              } ]

let tests: Test = testList "Pages for shells" [ manual; bash; fish; zsh ]

/// Programs started with given flags, variables and a file, for the tests of options. No file and no variable of the
/// machine is read.
module Lightway.Tests.OptionRuns

open System
open System.IO
open Expecto
open Lightway.Options

/// A program started with flags, variables and the text of its configuration file.
let private start parse (prefix: string) (flags: string list) (variables: (string * string) list) (yaml: string) =
    let variables = Map [ for name, value in variables -> prefix + name, value ]

    let getEnv name =
        match Map.tryFind name variables with
        | Some value -> value
        | None -> null

    let readFile path =
        if path = "config.yaml" then
            yaml
        else
            raise (FileNotFoundException "no such file")

    parse (Array.ofList ("--config-file" :: "config.yaml" :: flags), Func<_, _> getEnv, Func<_, _> readFile)

let server = start ServerOptions.Parse "LW_SERVER_"
let client = start ClientOptions.Parse "LW_CLIENT_"

let run (outcome: ParseOutcome<'Options>) : 'Options =
    if outcome.Kind <> OutcomeKind.Run then
        failtestf "not run: %s" outcome.Text

    outcome.Options

let refusal (outcome: ParseOutcome<'Options>) : string =
    Expect.equal outcome.Kind OutcomeKind.Error "refused"
    Expect.isFalse (outcome.Text.Contains '\n') "one line"
    outcome.Text

let expectAll (text: string) (parts: string list) =
    for part in parts do
        Expect.stringContains text part "the message names it"

/// The shortest file that a server starts with.
let least = "mode: udp\nuser_db: ./users\n"

/// The shortest file that a client starts with.
let leastClient =
    "mode: udp\nserver: vpn.example.com:27690\nuser: me\npassword: secret\n"

let flagOf (key: string) = "--" + key.Replace('_', '-')

/// Fails unless `value`, in each layer, leaves the options at `defaults`, without a warning, or with one that names the key
/// and says that it has no effect, and `wrong` is refused by a message that names key and value.
let private expectNoEffect
    (isWarned: bool)
    (start: string list -> (string * string) list -> string -> ParseOutcome<'Options>)
    (yaml: string)
    (defaults: 'Options)
    (key: string)
    (value: string)
    (wrong: string option)
    =
    let inEachLayer text =
        [ start [] [] $"{yaml}{key}: '{text}'"
          start [] [ key.ToUpperInvariant(), text ] yaml
          start [ flagOf key; text ] [] yaml
          start [ $"{flagOf key}={text}" ] [] yaml ]

    for outcome in inEachLayer value do
        Expect.equal (run outcome) defaults "it has no effect"

        if isWarned then
            let warning = Expect.wantSome (Seq.tryExactlyOne outcome.Warnings) "one warning"
            expectAll warning [ key; "not served yet"; "it has no effect" ]
        else
            Expect.isEmpty outcome.Warnings "what it asks for is done, or there is a line about it at start"

    for wrong in Option.toList wrong do
        for outcome in inEachLayer wrong do
            expectAll (refusal outcome) [ key; $"\"{wrong}\"" ]

/// An option that a build to come will serve.
let expectNotServed start = expectNoEffect true start

/// An option that asks for what is done in any case.
let expectAccepted start = expectNoEffect false start

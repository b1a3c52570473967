/// `Bench pest`: one pest on demand, from the namespace that the program runs in.
module Lightway.Bench.PestCommand

open System
open System.Globalization
open System.IO
open System.Net
open Lightway.Lab
open Lightway.Lab.Pests

let private usage =
    let width = Pest.all |> List.map (fst >> String.length) |> List.max

    """usage: Lightway.Bench pest KIND --client FILE [--rate N] [--seconds N] [--ports N] [--from ADDRESS,…]
                          [--length BYTES] [--burst N] [--standing N] [--clients N]

FILE is a client.yaml, as `lightway-server init` writes it: it says where the server is. Run it as
`ip netns exec NAMESPACE …` in a namespace of your own, never against a server that others use.

--rate      per second: datagrams, connections or logins (1000)
--seconds   how long, at most 600 (10)
--ports     sockets that a flood comes from, at most 4096 (400)
--from      local addresses to send from, by turns
--length    bytes of a datagram of garbage, 1 to 65507 (300)
--burst     datagrams per send, 1 to 64 (32)
--standing  half-open connections that are kept, at most 16384 (12000)
--clients   clients that share the rate, for kinds with a login, at most 64 (1)

"""
    + String.Join('\n', [ for name, text in Pest.all -> $"{name.PadRight width}  {text}" ])

type private Request = { Client: string; Plan: Plan }

let private number (low: float) (high: float) (text: string) : float =
    match Double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture) with
    | true, value when value >= low && value <= high -> value
    | _ -> invalidArg "" $"{text} is not a number from {low} to {high}"

let rec private parse (request: Request) (arguments: string list) : Request =
    let next (plan: Plan) rest = parse { request with Plan = plan } rest
    let plan = request.Plan

    match arguments with
    | [] when request.Client = "" -> invalidArg "" "--client FILE is missing"
    | [] -> request
    | "--client" :: file :: rest -> parse { request with Client = file } rest
    | "--rate" :: text :: rest ->
        next
            { plan with
                Rate = number 0.1 10e6 text }
            rest
    | "--seconds" :: text :: rest ->
        next
            { plan with
                Duration = TimeSpan.FromSeconds(number 0.1 600.0 text) }
            rest
    | "--ports" :: text :: rest ->
        next
            { plan with
                Ports = int (number 1.0 4096.0 text) }
            rest
    | "--length" :: text :: rest ->
        next
            { plan with
                Length = int (number 1.0 65507.0 text) }
            rest
    | "--burst" :: text :: rest ->
        next
            { plan with
                Burst = int (number 1.0 64.0 text) }
            rest
    | "--clients" :: text :: rest ->
        next
            { plan with
                Clients = int (number 1.0 64.0 text) }
            rest
    | "--standing" :: text :: rest ->
        next
            { plan with
                Standing = int (number 1.0 16384.0 text) }
            rest
    | "--from" :: text :: rest ->
        let address (part: string) =
            match IPAddress.TryParse part with
            | true, address -> address
            | _ -> invalidArg "" $"{part} is not an address"

        next
            { plan with
                Sources = text.Split ',' |> Array.map address |> List.ofArray }
            rest
    | argument :: _ -> invalidArg "" $"{argument} is not understood"

/// 0 when it ran to its end; 1 when it could not; 2 for wrong arguments. Prints one line.
let run (arguments: string list) : int =
    try
        match arguments with
        | kind :: rest when Pest.all |> List.exists (fun (name, _) -> name = kind) ->
            let request = parse { Client = ""; Plan = Plan.Standard } rest
            printfn $"{kind}: {Pest.run kind (Target.Read request.Client) request.Plan}"
            0
        | _ ->
            eprintfn $"{usage}"
            2
    with
    | :? ArgumentException as error ->
        eprintfn $"pest: {error.Message}"
        2
    | :? IOException
    | :? FormatException
    | LabException _ as error ->
        eprintfn $"pest: {error.Message}"
        1

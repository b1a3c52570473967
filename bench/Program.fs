module Lightway.Bench.Program

[<EntryPoint>]
let main argv =
    match List.ofArray argv with
    | "micro" :: rest -> Micro.run (Array.ofList rest)
    | "demo" :: rest -> Demo.run (Array.ofList rest)
    | "pest" :: rest -> PestCommand.run rest
    | "pests" :: rest -> Pests.run rest
    | "scale" :: rest -> Load.Scaling.run rest
    | "start" :: rest -> Load.FirstBytes.run rest
    | "pacing" :: rest -> Load.Pacing.run rest
    | "matrix" :: rest -> Matrix.Command.run rest
    | _ ->
        eprintfn
            "usage: Lightway.Bench micro | demo [--bytes N] | pest KIND --client FILE [ARGUMENTS] | pests [ARGUMENTS] | matrix [ARGUMENTS] | scale [ARGUMENTS] | start [ARGUMENTS] | pacing [ARGUMENTS]"

        2

module Lightway.Bench.Program

[<EntryPoint>]
let main argv =
    match List.ofArray argv with
    | "micro" :: rest -> Micro.run (Array.ofList rest)
    | "demo" :: rest -> Demo.run (Array.ofList rest)
    | "pest" :: rest -> PestCommand.run rest
    | "pests" :: rest -> Pests.run rest
    | "matrix" :: rest -> Matrix.Command.run rest
    | _ ->
        eprintfn
            "usage: Lightway.Bench micro | demo [--bytes N] | pest KIND --client FILE [ARGUMENTS] | pests [ARGUMENTS] | matrix [ARGUMENTS]"

        2

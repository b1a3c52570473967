/// Private fields of a state, so that it can be told from others.
module Lightway.Specs.Search.Fields

open System.Reflection
open FSharp.Reflection

/// The numbers in a record's fields. `view` takes the name and the value of each number and says what of it matters: a time
/// matters as the difference to another one, as nothing depends on when a clock was started.
let numbersOf<'record> : 'record -> (string -> int64 -> int64) -> int64 list =
    let flags = BindingFlags.NonPublic ||| BindingFlags.Public
    let names = FSharpType.GetRecordFields(typeof<'record>, flags) |> Array.map _.Name
    let read = FSharpValue.PreComputeRecordReader(typeof<'record>, flags)

    fun record view ->
        [ for name, value in Array.zip names (read record) do
              match value with
              | :? int64 as number -> view name number
              | :? int as number -> view name (int64 number)
              | :? uint64 as number -> view name (int64 number)
              | :? uint16 as number -> view name (int64 number)
              | :? bool as flag -> if flag then 1L else 0L
              | other when other.GetType().IsEnum -> int64 (System.Convert.ToInt32 other)
              | other -> failwith $"{name} has a {other.GetType().Name}" ]

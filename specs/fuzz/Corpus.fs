/// Inputs as text: hexadecimal digits, blanks for the eye, and comments from # to the end of the line.
module Lightway.Fuzz.Corpus

open System
open System.IO
open System.Security.Cryptography

let private decode (text: string) : byte[] =
    text.Split '\n'
    |> Array.map (fun line -> line.Split('#')[0])
    |> String.concat ""
    |> String.filter (Char.IsWhiteSpace >> not)
    |> Convert.FromHexString

let read (path: string) : byte[] = decode (File.ReadAllText path)

/// The inputs of a target, by file name, so that a run does not depend on the file system.
let load (folder: string) (target: string) : byte[] list =
    let path = Path.Combine(folder, target)

    if Directory.Exists path then
        Directory.GetFiles(path, "*.hex") |> Array.sort |> Array.map read |> List.ofArray
    else
        []

/// Writes an input as `TARGET-DIGEST.hex` with what it did as a comment, and returns the file's path.
let save (folder: string) (target: string) (comment: string) (input: byte[]) : string =
    let digest = Convert.ToHexStringLower(SHA256.HashData input)[..7]
    let path = Path.Combine(folder, $"{target}-{digest}.hex")
    Directory.CreateDirectory folder |> ignore
    let comment = comment.ReplaceLineEndings "\n# "

    let lines =
        input |> Array.chunkBySize 32 |> Array.map Convert.ToHexStringLower |> String.concat "\n"

    File.WriteAllText(path, $"# {comment}\n{lines}\n")
    path

/// The target that a saved input is for.
let targetOf (path: string) : string =
    let name = Path.GetFileNameWithoutExtension path
    name[.. name.LastIndexOf '-' - 1]

/// The order of the engine's rooms, read from the project file, against the names that each source file uses.
module Lightway.Tests.RoomsTests

open System
open System.IO
open System.Text.RegularExpressions
open Expecto

let private root =
    let rec up (folder: string) =
        if File.Exists(Path.Combine(folder, "Lightway.slnx")) then
            folder
        else
            up (Path.GetDirectoryName folder)

    up AppContext.BaseDirectory

/// A source file: its room, its name and its text.
type private Source =
    { Room: string
      Name: string
      Text: string }

/// The text without comments and string literals: what is left names types because it uses them.
let private code (text: string) =
    Regex.Replace(text, @"//[^\n]*|""(\\.|[^""\\\n])*""", "")

let private declaration =
    Regex(
        @"^(?:public|internal)\s+(?:(?:sealed|static|abstract|unsafe|partial|readonly|ref)\s+)*(?:record\s+struct|record|class|struct|enum|interface|delegate\s+\S+)\s+(\w+)",
        RegexOptions.Multiline
    )

/// Each use of a type that a later room declares. `rooms` are in order of dependence.
let private arrowsUp (rooms: string list) (sources: Source list) : string list =
    let place room = List.findIndex ((=) room) rooms

    let homes =
        [ for source in sources do
              for found in declaration.Matches(code source.Text) do
                  found.Groups[1].Value, place source.Room ]
        |> Map.ofList

    [ for source in sources do
          let names =
              Regex.Matches(code source.Text, @"\b[A-Z]\w*") |> Seq.map _.Value |> Seq.distinct

          for name in names do
              match homes.TryFind name with
              | Some home when home > place source.Room -> $"{source.Room}/{source.Name} uses {name} of {rooms[home]}"
              | _ -> () ]

/// The rooms in the order of the project file; the files that lie directly in tunnel/ are a room too, "hall".
let private rooms =
    let project = File.ReadAllText(Path.Combine(root, "Lightway.Tunnel.csproj"))

    [ for entry in Regex.Matches(project, @"Compile Include=""tunnel/(?:(\w+)/)?[\w*]+\.cs""") do
          match entry.Groups[1].Value with
          | "" -> "hall"
          | room -> room ]

let private sources =
    let tunnel = Path.Combine(root, "tunnel")

    [ for path in Directory.EnumerateFiles(tunnel, "*.cs", SearchOption.AllDirectories) do
          let folder = Path.GetRelativePath(tunnel, Path.GetDirectoryName path)

          { Room = if folder = "." then "hall" else folder
            Name = Path.GetFileName path
            Text = File.ReadAllText path } ]

/// Folders of the engine and the programs, and the product's source files.
let private folders, private files =
    let product =
        [ "segmenter"; "protocol"; "options"; "tunnel"; "hosting"; "server"; "client" ]

    let all =
        [ for folder in product do
              let path = Path.Combine(root, folder)
              path
              yield! Directory.EnumerateDirectories(path, "*", SearchOption.AllDirectories) ]

    let core =
        [ "segmenter"; "protocol"; "options" ] |> List.map (fun name -> Path.Combine(root, name))

    List.except core all,
    [ for folder in all do
          yield! Directory.EnumerateFiles(folder, "*.cs")
          yield! Directory.EnumerateFiles(folder, "*.fs") ]

let tests =
    testList
        "Rooms"
        [ test "the project file lists every room of the engine" {
              let present = sources |> List.map _.Room |> List.distinct |> List.sort
              Expect.equal (List.sort rooms) present "rooms"
          }

          test "a room of the engine uses only the rooms listed before it" {
              Expect.equal (arrowsUp rooms sources) [] "arrows up"
          }

          test "an arrow up is found, a name in a comment or a text is not" {
              let source room name text =
                  { Room = room
                    Name = name
                    Text = text }

              let upper = source "channel" "Upper.cs" "internal sealed class Upper { }"

              let lower text =
                  [ source "kernel" "Lower.cs" $"public static class Lower {{ {text} }}"; upper ]

              Expect.equal (arrowsUp rooms (lower "Upper? _upper;")) [ "kernel/Lower.cs uses Upper of channel" ] "a use"

              Expect.isEmpty (arrowsUp rooms (lower "// see Upper\n")) "a comment"
              Expect.isEmpty (arrowsUp rooms (lower "const string Text = \"Upper\";")) "a text"
          }

          test "a namespace is named after its folder" {
              for path in files do
                  if path.EndsWith ".cs" && Path.GetFileName path <> "Program.cs" then
                      let folder = Path.GetRelativePath(root, Path.GetDirectoryName path)
                      let expected = "Lightway." + folder.Replace('/', '.')

                      let found =
                          Regex.Match(File.ReadAllText path, @"^namespace ([\w.]+);", RegexOptions.Multiline)

                      Expect.equal (found.Groups[1].Value.ToLowerInvariant()) (expected.ToLowerInvariant()) path
          }

          test "nothing below knows anything above" {
              let above =
                  [ "segmenter", "Protocol|Options|Tunnel|Hosting|Server|Client"
                    "protocol", "Options|Tunnel|Hosting|Server|Client"
                    "options", "Tunnel|Hosting|Server|Client"
                    "tunnel", "Options|Hosting|Server|Client"
                    "hosting", "Server|Client"
                    "server", "Client"
                    "client", "Server" ]

              for folder, floors in above do
                  for path in files do
                      if Path.GetRelativePath(root, path).StartsWith $"{folder}/" then
                          let uses =
                              Regex.Matches(code (File.ReadAllText path), $@"\bLightway\.({floors})\b")
                              |> Seq.map _.Value
                              |> List.ofSeq

                          Expect.isEmpty uses path
          }

          test
              "no source file of the product has more than 500 lines, no folder of engine and programs more than 12 files" {
              for path in files do
                  Expect.isLessThanOrEqual (File.ReadAllLines path).Length 500 path

              for folder in folders do
                  Expect.isLessThanOrEqual (Directory.GetFiles folder).Length 12 folder
          } ]

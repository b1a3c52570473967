/// The packages of the core, as a project elsewhere uses them.
module Lightway.Tests.PackageTests

open System
open System.Diagnostics
open System.IO
open System.IO.Compression
open System.Runtime.InteropServices
open System.Text.RegularExpressions
open System.Xml.Linq
open Expecto
open Lightway.Lab

let rec private above (directory: string) : string =
    if File.Exists(Path.Combine(directory, "Lightway.slnx")) then
        directory
    else
        match Path.GetDirectoryName directory with
        | null -> failwith $"no directory above {AppContext.BaseDirectory} has Lightway.slnx"
        | parent -> above parent

let private root = lazy above AppContext.BaseDirectory

let private sample = lazy Path.Combine(root.Value, "samples", "recut")

/// The `dotnet` whose runtime this process has.
let private dotnet =
    Path.GetFullPath(Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "..", "..", "..", "dotnet"))

/// Runs `dotnet` with a package cache of its own; its standard output.
let private run (folder: string) (arguments: string list) : string =
    let info =
        ProcessStartInfo(
            dotnet,
            arguments,
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    for name, value in
        [ "NUGET_PACKAGES", Path.Combine(folder, "cache")
          "MSBUILDDISABLENODEREUSE", "1"
          "DOTNET_CLI_TELEMETRY_OPTOUT", "1"
          "DOTNET_NOLOGO", "1" ] do
        info.Environment[name] <- value

    use running = Process.Start info
    let errors = running.StandardError.ReadToEndAsync()
    let output = running.StandardOutput.ReadToEnd()
    running.WaitForExit()

    if running.ExitCode <> 0 then
        let line = String.concat " " arguments
        failtestf "`dotnet %s` failed with exit code %d: %s%s" line running.ExitCode output errors.Result

    output

/// The packages that build.fsx makes, in `folder`/packages.
let private pack (folder: string) : unit =
    for name in [ "Segmenter"; "Protocol" ] do
        let project = Path.Combine(root.Value, $"Lightway.{name}.fsproj")
        let target = Path.Combine(folder, "packages")
        Shell.run dotnet [ "pack"; project; "-c"; "Release"; "--no-build"; "-o"; target ] |> ignore

let private version = "0.1.0"

let private entries (path: string) : string list =
    use archive = ZipFile.OpenRead path
    [ for entry in archive.Entries -> entry.FullName ]

let private specification (path: string) : XElement =
    use archive = ZipFile.OpenRead path
    let entry = archive.Entries |> Seq.find _.FullName.EndsWith(".nuspec")
    use stream = entry.Open()
    (XDocument.Load stream).Root.Elements() |> Seq.head // metadata

let private child (name: string) (element: XElement) : XElement =
    element.Elements() |> Seq.find (fun child -> child.Name.LocalName = name)

let private withFolder (body: string -> unit) : unit =
    let folder = Directory.CreateTempSubdirectory("lightway-packages-").FullName

    try
        body folder
    finally
        Directory.Delete(folder, recursive = true)

/// The package of FSharp.Core that this build was restored with: the only one that ours depend on.
let private fsharpCore (wanted: string) : string =
    let cache =
        match Environment.GetEnvironmentVariable "NUGET_PACKAGES" with
        | path when not (String.IsNullOrEmpty path) -> path
        | _ -> Path.Combine(Environment.GetFolderPath Environment.SpecialFolder.UserProfile, ".nuget", "packages")

    Path.Combine(cache, "fsharp.core", wanted, $"fsharp.core.{wanted}.nupkg")

/// IP packets of a little-endian capture in the classic format.
let private packetsOf (path: string) : byte[] list =
    let file = File.ReadAllBytes path

    let rec from (at: int) =
        if at = file.Length then
            []
        else
            let length = BitConverter.ToInt32(file, at + 8)
            file[at + 16 .. at + 15 + length] :: from (at + 16 + length)

    from 24

let private word (bytes: byte[]) (at: int) = int bytes[at] * 256 + int bytes[at + 1]

/// One's complement sum of words (RFC 1071).
let private sum (bytes: byte[]) : int =
    let padded =
        if bytes.Length % 2 = 1 then
            Array.append bytes [| 0uy |]
        else
            bytes

    let mutable total =
        Seq.sum (seq { for at in 0..2 .. padded.Length - 2 -> word padded at })

    while total > 0xFFFF do
        total <- (total &&& 0xFFFF) + (total >>> 16)

    total

/// Transport header and payload with their pseudo-header; of ICMP, without.
let private covered (packet: byte[]) : byte[] =
    let at, addresses, protocol =
        if packet[0] >>> 4 = 4uy then
            20, packet[12..19], packet[9]
        else
            40, packet[8..39], packet[6]

    let length = packet.Length - at

    if protocol = 1uy then
        packet[at..]
    else
        Array.concat [ addresses; [| 0uy; protocol; byte (length / 256); byte length |]; packet[at..] ]

let private payload (packet: byte[]) : byte[] =
    if packet[0] >>> 4 = 6uy then
        packet[48..]
    elif packet[9] = 6uy then
        packet[20 + int (packet[32] >>> 4) * 4 ..]
    else
        packet[28..]

let tests: Test =
    testList
        "Packages"
        [ test "a package has its assembly, XML docs, readme, licence and symbols" {
              withFolder
              <| fun folder ->
                  pack folder

                  for name, dependencies in
                      [ "Lightway.Segmenter", [ "FSharp.Core" ]
                        "Lightway.Protocol", [ "FSharp.Core"; "Lightway.Segmenter" ] ] do
                      let package = Path.Combine(folder, "packages", $"{name}.{version}")
                      let files = entries $"{package}.nupkg"

                      Expect.containsAll
                          files
                          [ $"lib/net10.0/{name}.dll"; $"lib/net10.0/{name}.xml"; "README.md" ]
                          name

                      Expect.contains (entries $"{package}.snupkg") $"lib/net10.0/{name}.pdb" "symbols"
                      let metadata = specification $"{package}.nupkg"
                      Expect.equal (child "license" metadata).Value "GPL-3.0-or-later" "licence"
                      Expect.equal (child "readme" metadata).Value "README.md" "readme"
                      Expect.isNonEmpty (child "description" metadata).Value "description"

                      let ids =
                          [ for group in (child "dependencies" metadata).Elements() do
                                for dependency in group.Elements() -> dependency.Attribute(XName.Get "id").Value ]

                      Expect.equal (List.sort ids) dependencies "dependencies"
          }

          test "the sample, copied elsewhere, is built from the packages, and cuts and coalesces a capture" {
              withFolder
              <| fun folder ->
                  pack folder
                  let packages = Path.Combine(folder, "packages")

                  let metadata =
                      specification (Path.Combine(packages, $"Lightway.Segmenter.{version}.nupkg"))

                  let wanted =
                      (child "dependencies" metadata).Descendants()
                      |> Seq.find (fun element ->
                          match element.Attribute(XName.Get "id") with
                          | null -> false
                          | id -> id.Value = "FSharp.Core")
                      |> _.Attribute(XName.Get "version").Value

                  File.Copy(fsharpCore wanted, Path.Combine(packages, $"FSharp.Core.{wanted}.nupkg"))

                  File.WriteAllText(
                      Path.Combine(folder, "nuget.config"),
                      """<configuration>
  <packageSources><clear /><add key="local" value="packages" /></packageSources>
  <fallbackPackageFolders><clear /></fallbackPackageFolders>
</configuration>"""
                  )

                  let copy = Directory.CreateDirectory(Path.Combine(folder, "recut")).FullName

                  for file in Directory.GetFiles sample.Value do
                      File.Copy(file, Path.Combine(copy, Path.GetFileName file))

                  let recut arguments =
                      run folder ([ "run"; "-c"; "Release"; "--project"; copy; "--" ] @ arguments)

                  let path name = Path.Combine(folder, name)
                  let traffic = Path.Combine(copy, "traffic.pcap")
                  let output = recut [ traffic; path "segments.pcap"; path "out.pcap"; "600" ]
                  let packets = packetsOf traffic
                  let segments = packetsOf (path "segments.pcap")
                  let last = Array.last (output.TrimEnd().Split '\n')
                  Expect.equal last $"4 packets, {segments.Length} segments, 4 packets" "what it says"
                  Expect.equal (packetsOf (path "out.pcap")) packets "cut and coalesced, they are the same packets"
                  Expect.isGreaterThan segments.Length 20 "segments"

                  for segment in segments do
                      Expect.isLessThanOrEqual segment.Length 600 "the MTU"
                      Expect.equal (sum (covered segment)) 0xFFFF "the checksum"

                  Expect.equal
                      (segments |> List.map payload |> Array.concat)
                      (packets |> List.map payload |> Array.concat)
                      "no byte is lost"

                  // The capture in the repository is the one that the sample makes.
                  recut [ "example"; path "example.pcap" ] |> ignore
                  Expect.equal (File.ReadAllBytes(path "example.pcap")) (File.ReadAllBytes traffic) "example"

                  let assets = File.ReadAllText(Path.Combine(copy, "obj", "project.assets.json"))
                  Expect.isTrue (Regex.IsMatch(assets, $"\"Lightway.Segmenter/{version}\"")) "the package"
                  Expect.isFalse (assets.Contains root.Value) "nothing of the repository"
          } ]

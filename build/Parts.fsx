/// What the packages are about: machines, the version and its time, and what is in a program, for its licences and its bill of
/// materials.
module Parts

#load "Steps.fsx"

open System
open System.Collections.Generic
open System.IO
open System.Runtime.InteropServices
open System.Text.Json.Nodes
open System.Text.RegularExpressions
open System.Xml.Linq
open Fake.IO.FileSystemOperators
open Steps

/// A processor by its three names: .NET's, Debian's, the kernel's.
type Machine =
    { Runtime: string
      Debian: string
      Kernel: string }

let x64 =
    { Runtime = "linux-x64"
      Debian = "amd64"
      Kernel = "x86_64" }

let arm64 =
    { Runtime = "linux-arm64"
      Debian = "arm64"
      Kernel = "aarch64" }

let here =
    if RuntimeInformation.ProcessArchitecture = Architecture.Arm64 then
        arm64
    else
        x64

let work = artifacts </> "package"

let version =
    Regex.Match(File.ReadAllText(root </> "Directory.Build.props"), "<Version>(.+)</Version>").Groups[1].Value

/// Standard output of a program that must succeed.
let outputOf (program: string) (arguments: string list) =
    use running =
        Diagnostics.Process.Start(
            Diagnostics.ProcessStartInfo(program, arguments, WorkingDirectory = root, RedirectStandardOutput = true)
        )

    let output = running.StandardOutput.ReadToEnd()
    running.WaitForExit()

    if running.ExitCode <> 0 then
        failwith $"{program} failed with exit code {running.ExitCode}"

    output

/// Seconds since 1970 that all files are dated with: SOURCE_DATE_EPOCH, or the time of the commit.
let epoch =
    lazy
        (match Environment.GetEnvironmentVariable "SOURCE_DATE_EPOCH" with
         | null
         | "" -> (outputOf "git" [ "log"; "-1"; "--format=%ct" ]).Trim()
         | time -> time)

let date = lazy DateTimeOffset.FromUnixTimeSeconds(Int64.Parse epoch.Value)

let pin =
    lazy
        (dict
            [ for line in File.ReadAllLines(root </> "native" </> "wolfssl.pin") do
                  if not (line.StartsWith '#') && line.Contains '=' then
                      let at = line.IndexOf '='
                      line[.. at - 1], line[at + 1 ..] ])

/// The files of a tree, by their paths in it, in order.
let filesOf (tree: string) =
    [ for file in Directory.GetFiles(tree, "*", SearchOption.AllDirectories) do
          let path = Path.GetRelativePath(tree, file)

          if not (path.StartsWith "DEBIAN/") && isNull (FileInfo(file).LinkTarget) then
              path ]
    |> List.sortWith (fun a b -> String.CompareOrdinal(a, b))

let hex (hash: byte[]) = Convert.ToHexStringLower hash

let project (program: string) =
    "Lightway." + string (Char.ToUpperInvariant program[0]) + program[1..]

type Part =
    {
        Name: string
        Version: string
        Licence: string
        Authors: string
        /// SHA-512 of the package as the lock file has it, base64; empty: not known.
        Hash: string
    }

let private packageCache =
    match Environment.GetEnvironmentVariable "NUGET_PACKAGES" with
    | null
    | "" -> Environment.GetFolderPath Environment.SpecialFolder.UserProfile </> ".nuget" </> "packages"
    | folder -> folder

let inCache (name: string) (version: string) =
    packageCache </> name.ToLowerInvariant() </> version

let private part (name: string) (version: string) (hash: string) =
    let lower = name.ToLowerInvariant()

    let metadata =
        XDocument.Load(inCache name version </> $"{lower}.nuspec").Root.Elements() |> Seq.head

    let field (wanted: string) =
        metadata.Elements() |> Seq.tryFind (fun element -> element.Name.LocalName = wanted)

    { Name = name
      Version = version
      Licence =
        match field "license", field "licenseUrl" with
        | Some license, _ when string (license.Attribute(XName.Get "type")) = "type=\"expression\"" -> license.Value
        // Packages of .NET from before 2018 have an address only.
        | _, Some url when url.Value.EndsWith "dotnet/corefx/blob/master/LICENSE.TXT" -> "MIT"
        | _ -> "NOASSERTION"
      Authors = field "authors" |> Option.map _.Value |> Option.defaultValue "unknown"
      Hash = hash }

/// Where packages for release are built: apart from the usual build, because symbols contain the folder (F#) and generated sources in the order
/// in which the file system lists ours (C#), and would make an assembly depend on both.
let apart = work </> "build"

let private withoutSymbols = [ $"-p:ArtifactsPath={apart}"; "-p:DebugType=none" ]

/// The frameworks in the single file, as its runtimeconfig.json names them.
let frameworks (program: string) (machine: Machine) =
    let name = $"lightway-{program}.runtimeconfig.json"

    let file =
        [ apart; artifacts ]
        |> List.map (fun folder -> folder </> "bin" </> project program </> $"release_{machine.Runtime}" </> name)
        |> List.find File.Exists

    let options = JsonNode.Parse(File.ReadAllText file)["runtimeOptions"]

    [ for framework in options["includedFrameworks"].AsArray() do
          $"""{framework["name"]}.Runtime.{machine.Runtime}""", string framework["version"] ]

/// The packages that the lock file has for this machine, and the frameworks.
let parts (program: string) (machine: Machine) : Part list =
    let locked =
        JsonNode.Parse(File.ReadAllText(root </> "locks" </> $"{project program}.lock.json"))["dependencies"]

    let found = SortedDictionary<string, Part>(StringComparer.OrdinalIgnoreCase)

    for framework in [ "net10.0"; $"net10.0/{machine.Runtime}" ] do
        match locked[framework] with
        | null -> ()
        | packages ->
            for package in packages.AsObject() do
                match package.Value["resolved"] with
                | null -> () // a project of ours
                | resolved ->
                    found[package.Key] <- part package.Key (string resolved) (string package.Value["contentHash"])

    List.ofSeq found.Values
    @ [ for name, version in frameworks program machine -> part name version "" ]

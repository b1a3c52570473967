/// What operators install: each program as one file with the .NET runtime in it and wolfSSL beside it, as .tar.gz and as .deb
/// with service units, with a bill of materials (SPDX 2.3). The same commit gives the same bytes, in whatever folder.
module Package

#load "Steps.fsx"
#load "Native.fsx"

open System
open System.Collections.Generic
open System.IO
open System.Runtime.InteropServices
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Text.Json.Nodes
open System.Text.RegularExpressions
open System.Xml.Linq
open Fake.IO
open Fake.IO.FileSystemOperators
open Steps

/// A processor by its three names: .NET's, Debian's, the kernel's.
type Machine =
    { Runtime: string
      Debian: string
      Kernel: string }

let private x64 =
    { Runtime = "linux-x64"
      Debian = "amd64"
      Kernel = "x86_64" }

let private arm64 =
    { Runtime = "linux-arm64"
      Debian = "arm64"
      Kernel = "aarch64" }

let private here =
    if RuntimeInformation.ProcessArchitecture = Architecture.Arm64 then
        arm64
    else
        x64

let private programs = [ "server"; "client" ]
let private work = artifacts </> "package"

let private version =
    Regex.Match(File.ReadAllText(root </> "Directory.Build.props"), "<Version>(.+)</Version>").Groups[1].Value

/// Standard output of a program that must succeed.
let private outputOf (program: string) (arguments: string list) =
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
let private epoch =
    lazy
        (match Environment.GetEnvironmentVariable "SOURCE_DATE_EPOCH" with
         | null
         | "" -> (outputOf "git" [ "log"; "-1"; "--format=%ct" ]).Trim()
         | time -> time)

let private date = lazy DateTimeOffset.FromUnixTimeSeconds(Int64.Parse epoch.Value)

let private pin =
    lazy
        (dict
            [ for line in File.ReadAllLines(root </> "native" </> "wolfssl.pin") do
                  if not (line.StartsWith '#') && line.Contains '=' then
                      let at = line.IndexOf '='
                      line[.. at - 1], line[at + 1 ..] ])

let private compilerOf (machine: Machine) =
    if machine = here then
        ""
    else
        $"{machine.Kernel}-linux-gnu-"

let private installTools (machines: Machine list) =
    installCompiler ()

    install
        [ program "dpkg-deb" "dpkg"
          program "strip" "binutils"
          program "git" "git"
          if List.contains arm64 machines && here <> arm64 then
              program "aarch64-linux-gnu-gcc" "gcc-aarch64-linux-gnu"
              (fun () -> Directory.Exists "/usr/aarch64-linux-gnu/include"), "libc6-dev-arm64-cross"
          if List.contains x64 machines && here <> x64 then
              program "x86_64-linux-gnu-gcc" "gcc-x86-64-linux-gnu"
              (fun () -> Directory.Exists "/usr/x86_64-linux-gnu/include"), "libc6-dev-amd64-cross" ]

/// The pinned wolfSSL for a machine, without symbols.
let private library (machine: Machine) =
    let folder = work </> "native" </> machine.Kernel
    let stamp = folder </> "stamp"

    if not (File.Exists stamp && File.ReadAllText stamp = Native.nativeStamp ()) then
        Shell.cleanDir folder
        run "bash" [ root </> "native" </> "build.sh"; folder; machine.Kernel ]
        run (compilerOf machine + "strip") [ "--strip-unneeded"; folder </> "libwolfssl.so" ]
        File.WriteAllText(stamp, Native.nativeStamp ())

    folder </> "libwolfssl.so"

let private project (program: string) =
    "Lightway." + string (Char.ToUpperInvariant program[0]) + program[1..]

/// The program as one file. `options` are the build's.
let private publish (options: string list) (program: string) (machine: Machine) =
    let folder = work </> "publish" </> machine.Runtime </> program
    Shell.cleanDir folder

    dotnet (
        [ "publish"
          $"{project program}.csproj"
          "-c"
          "Release"
          $"-p:SingleFileFor={machine.Runtime}"
          "-p:RestoreLockedMode=true"
          "-o"
          folder ]
        @ options
    )

    folder </> $"lightway-{program}"

// Parts: what is in a program, for its licences and its bill of materials.

type private Part =
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

let private inCache (name: string) (version: string) =
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

/// Where `all` builds: apart from the usual build, because symbols contain the folder (F#) and generated sources in the order
/// in which the file system lists ours (C#), and would make an assembly depend on both.
let private apart = work </> "build"

let private withoutSymbols = [ $"-p:ArtifactsPath={apart}"; "-p:DebugType=none" ]

/// The frameworks in the single file, as its runtimeconfig.json names them.
let private frameworks (program: string) (machine: Machine) =
    let name = $"lightway-{program}.runtimeconfig.json"

    let file =
        [ apart; artifacts ]
        |> List.map (fun folder -> folder </> "bin" </> project program </> $"release_{machine.Runtime}" </> name)
        |> List.find File.Exists

    let options = JsonNode.Parse(File.ReadAllText file)["runtimeOptions"]

    [ for framework in options["includedFrameworks"].AsArray() do
          $"""{framework["name"]}.Runtime.{machine.Runtime}""", string framework["version"] ]

/// The packages that the lock file has for this machine, and the frameworks.
let private parts (program: string) (machine: Machine) : Part list =
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

// Files.

let private execute =
    UnixFileMode.UserRead
    ||| UnixFileMode.UserWrite
    ||| UnixFileMode.UserExecute
    ||| UnixFileMode.GroupRead
    ||| UnixFileMode.GroupExecute
    ||| UnixFileMode.OtherRead
    ||| UnixFileMode.OtherExecute

let private read =
    UnixFileMode.UserRead
    ||| UnixFileMode.UserWrite
    ||| UnixFileMode.GroupRead
    ||| UnixFileMode.OtherRead

/// Writes a file below `tree`, and its directories.
let private put (tree: string) (mode: UnixFileMode) (path: string) (content: byte[]) =
    let file = tree </> path
    Directory.CreateDirectory(Path.GetDirectoryName file) |> ignore
    File.WriteAllBytes(file, content)
    File.SetUnixFileMode(file, mode)

let private putText tree path (text: string) =
    put tree read path (Encoding.UTF8.GetBytes text)

let private copy tree mode path (source: string) =
    put tree mode path (File.ReadAllBytes source)

let private compress (content: byte[]) =
    use target = new MemoryStream()

    // .NET's writer puts neither a name nor a time into the header (RFC 1952).
    (use gzip =
        new Compression.GZipStream(target, Compression.CompressionLevel.SmallestSize, leaveOpen = true)

     gzip.Write content)

    target.ToArray()

let private deployed name = root </> "deploy" </> name

/// A template with names between @.
let private fill (values: (string * string) list) (file: string) =
    (File.ReadAllText file, values)
    ||> List.fold (fun text (name, value) -> text.Replace($"@{name}@", value))

let private copyright (program: string) (machine: Machine) =
    let libraries =
        [ for part in parts program machine do
              $"  {part.Name} {part.Version} ({part.Licence}, {part.Authors})" ]

    fill
        [ "WOLFSSL", pin.Value["version"]
          "UPSTREAM", pin.Value["upstream"]
          "COMMIT", pin.Value["commit"]
          "SHA256", pin.Value["sha256"]
          "LIBRARIES", String.concat "\n" libraries ]
        (deployed "debian/copyright")

let private notices (machine: Machine) (program: string) =
    [ for name, version in frameworks program machine do
          for file in [ "LICENSE.TXT"; "THIRD-PARTY-NOTICES.TXT" ] do
              let path = inCache name version </> file

              if File.Exists path then
                  yield $"=== {name} {version}: {file} ===\n\n{File.ReadAllText path}\n" ]
    |> String.concat "\n"

/// What the program itself can write: its manual page and its completions. None if it has no such command yet.
let private generated (program: string) (binary: string) (kind: string) =
    let info =
        Diagnostics.ProcessStartInfo(
            binary,
            [ "--generate"; kind ],
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    use running = Diagnostics.Process.Start info
    let errors = running.StandardError.ReadToEndAsync()
    let output = running.StandardOutput.ReadToEnd()
    running.WaitForExit()
    errors.Wait()

    if running.ExitCode = 0 && output <> "" then
        Some output
    else
        say $"lightway-{program} does not generate {kind}: the package has none"
        None

// Debian packages.

let private changelog (package: string) =
    let time =
        date.Value.ToString("ddd, dd MMM yyyy HH:mm:ss +0000", Globalization.CultureInfo.InvariantCulture)

    $"{package} ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz in this directory.\n\n"
    + $" -- The authors of Lightway for .NET <maintainers@lightway.invalid>  {time}\n"

let private fillTree
    (tree: string)
    (program: string)
    (machine: Machine)
    (binary: string)
    (ours: string)
    (wolfSsl: string)
    =
    let package = $"lightway-{program}"
    let lib = $"usr/lib/{package}"
    let documents = $"usr/share/doc/{package}"
    let units = "usr/lib/systemd/system"
    let unit' name = deployed $"systemd/{name}"
    copy tree execute $"{lib}/{package}" binary
    copy tree read $"{lib}/libwolfssl.so" wolfSsl
    Directory.CreateDirectory(tree </> "usr/bin") |> ignore

    File.CreateSymbolicLink(tree </> "usr/bin" </> package, $"../lib/{package}/{package}") |> ignore

    Directory.CreateDirectory(tree </> "etc/lightway") |> ignore
    copy tree read $"{units}/{package}.service" (unit' $"{package}.service")
    copy tree read $"usr/lib/sysusers.d/{package}.conf" (unit' "lightway.sysusers")
    copy tree read $"usr/lib/modules-load.d/{package}.conf" (unit' "lightway.modules")

    if program = "server" then
        copy tree read $"{units}/{package}-device.service" (unit' $"{package}-device.service")
        copy tree execute $"{lib}/device" (unit' "device")
        copy tree read $"etc/default/{package}" (unit' $"{package}.default")
        copy tree read $"etc/sysctl.d/60-{package}.conf" (unit' $"{package}.sysctl")

    for example in
        (if program = "server" then
             [ "capabilities.conf"; "credentials.conf" ]
         else
             [ "no-dns.conf" ]) do
        copy tree read $"{documents}/examples/{example}" (unit' example)

    copy tree read $"{documents}/README.Debian" (deployed $"debian/{program}.README")
    putText tree $"{documents}/copyright" (copyright program machine)
    putText tree $"{documents}/dotnet-notices.txt" (notices machine program)
    put tree read $"{documents}/changelog.gz" (compress (Encoding.UTF8.GetBytes(changelog package)))
    put tree read $"{documents}/CHANGELOG.md.gz" (compress (File.ReadAllBytes(root </> "CHANGELOG.md")))

    for kind, path in
        [ "man", $"usr/share/man/man8/{package}.8"
          "bash", $"usr/share/bash-completion/completions/{package}"
          "zsh", $"usr/share/zsh/vendor-completions/_{package}"
          "fish", $"usr/share/fish/vendor_completions.d/{package}.fish" ] do
        match generated program ours kind with
        | Some text when kind = "man" -> put tree read (path + ".gz") (compress (Encoding.UTF8.GetBytes text))
        | Some text -> putText tree path text
        | None -> ()

/// The files of a tree, by their paths in it, in order.
let private filesOf (tree: string) =
    [ for file in Directory.GetFiles(tree, "*", SearchOption.AllDirectories) do
          let path = Path.GetRelativePath(tree, file)

          if not (path.StartsWith "DEBIAN/") && isNull (FileInfo(file).LinkTarget) then
              path ]
    |> List.sortWith (fun a b -> String.CompareOrdinal(a, b))

let private hex (hash: byte[]) = Convert.ToHexStringLower hash

let private addControl (tree: string) (program: string) (machine: Machine) =
    let package = $"lightway-{program}"

    let kilobytes =
        filesOf tree |> List.sumBy (fun path -> (FileInfo(tree </> path).Length + 1023L) / 1024L)

    let conffiles =
        [ for path in filesOf tree do
              if path.StartsWith "etc/" then
                  "/" + path + "\n" ]

    let sums =
        [ for path in filesOf tree do
              if not (path.StartsWith "etc/") then
                  $"{hex (MD5.HashData(File.ReadAllBytes(tree </> path)))}  {path}\n" ]

    putText
        tree
        "DEBIAN/control"
        (fill
            [ "VERSION", version; "ARCHITECTURE", machine.Debian; "SIZE", string kilobytes ]
            (deployed $"debian/{program}.control"))

    putText tree "DEBIAN/md5sums" (String.concat "" sums)

    if not conffiles.IsEmpty then
        putText tree "DEBIAN/conffiles" (String.concat "" conffiles)

    for script in [ "postinst"; "prerm" ] do
        copy tree execute $"DEBIAN/{script}" (deployed $"debian/{program}.{script}")

    copy tree execute "DEBIAN/postrm" (deployed "debian/postrm")

    for folder in Directory.GetDirectories(tree, "*", SearchOption.AllDirectories) do
        File.SetUnixFileMode(folder, execute)

    File.SetUnixFileMode(tree, execute)
    package

/// One file per package. Files are root's and not younger than the epoch; dpkg-deb sorts them.
let private buildDeb (compression: string list) (tree: string) (target: string) =
    Environment.SetEnvironmentVariable("SOURCE_DATE_EPOCH", epoch.Value)

    run "find" [ tree; "-exec"; "touch"; "--no-dereference"; $"--date=@{epoch.Value}"; "{}"; "+" ]

    run "dpkg-deb" ([ "--root-owner-group" ] @ compression @ [ "--build"; tree; target ])

let private deb compression folder program machine binary ours wolfSsl =
    let tree = work </> "tree" </> $"lightway-{program}_{machine.Debian}"
    Shell.cleanDir tree
    fillTree tree program machine binary ours wolfSsl
    let package = addControl tree program machine
    let target = folder </> $"{package}_{version}_{machine.Debian}.deb"
    buildDeb compression tree target
    tree

/// For other systems than Debian: the program, the library, the units and the licences.
let private tarball (folder: string) (tree: string) (program: string) (machine: Machine) =
    let name = $"lightway-{program}-{version}-{machine.Runtime}"
    let top = work </> "tar" </> name
    Shell.cleanDir top
    let package = $"lightway-{program}"

    for path in filesOf tree do
        let place =
            match Path.GetDirectoryName path with
            | folder when folder = $"usr/lib/{package}" -> Some(Path.GetFileName path)
            | folder when folder = $"usr/share/doc/{package}" && path.EndsWith ".txt" -> Some(Path.GetFileName path)
            | folder when folder = "usr/lib/systemd/system" -> Some("systemd" </> Path.GetFileName path)
            | _ -> None

        match place with
        | Some place -> copy top (File.GetUnixFileMode(tree </> path)) place (tree </> path)
        | None -> ()

    copy top read "NOTICE" (tree </> $"usr/share/doc/{package}/copyright")
    copy top read "LICENSE" (root </> "LICENSE")
    copy top read "CHANGELOG.md" (root </> "CHANGELOG.md")
    let tar = folder </> $"{name}.tar"

    run
        "tar"
        [ "--create"
          "--format=ustar"
          "--sort=name"
          "--owner=0"
          "--group=0"
          "--numeric-owner"
          "--mode=u+rwX,go+rX,go-w"
          $"--mtime=@{epoch.Value}"
          $"--file={tar}"
          $"--directory={Path.GetDirectoryName top}"
          name ]

    run "gzip" [ "--no-name"; "--force"; "-9"; tar ]

// Bill of materials, SPDX 2.3 (ISO/IEC 5962): the package, its files, and what its program is made of.

let private sbom (folder: string) (tree: string) (program: string) (machine: Machine) =
    let package = $"lightway-{program}"
    let name = $"{package}_{version}_{machine.Debian}"

    let object (fields: (string * JsonNode) list) =
        JsonObject(fields |> List.map KeyValuePair)

    let text (value: string) : JsonNode = JsonValue.Create value

    let list (items: #JsonNode list) : JsonNode =
        JsonArray(Array.ofList (List.map (fun item -> item :> JsonNode) items))

    let id (value: string) =
        "SPDXRef-" + Regex.Replace(value, "[^A-Za-z0-9.-]", "-")

    let checksum (algorithm: string) (value: string) =
        object [ "algorithm", text algorithm; "checksumValue", text value ]

    let paths = filesOf tree

    let contents =
        paths |> List.map (fun path -> path, File.ReadAllBytes(tree </> path))

    // SPDX 2.3 §7.9: the SHA-1 of all files' SHA-1, sorted.
    let verification =
        contents
        |> List.map (fun (_, bytes) -> hex (SHA1.HashData bytes))
        |> List.sortWith (fun a b -> String.CompareOrdinal(a, b))
        |> String.concat ""
        |> Encoding.ASCII.GetBytes
        |> SHA1.HashData
        |> hex

    let described (spdxId: string) name version licence supplier (more: (string * JsonNode) list) =
        object (
            [ "SPDXID", text spdxId
              "name", text name
              "versionInfo", text version
              "supplier", text supplier
              "downloadLocation", text "NOASSERTION"
              "licenseConcluded", text "NOASSERTION"
              "licenseDeclared", text licence
              "copyrightText", text "NOASSERTION" ]
            @ more
        )

    let reference (kind: string) (locator: string) =
        "externalRefs",
        list
            [ object
                  [ "referenceCategory", text "PACKAGE-MANAGER"
                    "referenceType", text kind
                    "referenceLocator", text locator ] ]

    let own =
        described
            (id package)
            package
            version
            "GPL-3.0-or-later"
            "Organization: The authors of Lightway for .NET"
            [ "filesAnalyzed", JsonValue.Create true
              "packageFileName", text $"{name}.deb"
              "packageVerificationCode", object [ ("packageVerificationCodeValue", text verification) ]
              reference "purl" $"pkg:deb/debian/{package}@{version}?arch={machine.Debian}" ]

    let notAnalyzed () : string * JsonNode = "filesAnalyzed", JsonValue.Create false

    let wolfSsl =
        described
            (id "wolfssl")
            "wolfssl"
            pin.Value["version"]
            "GPL-3.0-or-later"
            "Organization: wolfSSL Inc."
            [ notAnalyzed ()
              "checksums", list [ checksum "SHA256" pin.Value["sha256"] ]
              "sourceInfo", text $"""{pin.Value["upstream"]}, commit {pin.Value["commit"]}"""
              reference "purl" $"""pkg:github/wolfssl/wolfssl@v{pin.Value["version"]}-stable""" ]

    let libraries = parts program machine

    let others =
        [ for part in libraries do
              described
                  (id part.Name)
                  part.Name
                  part.Version
                  part.Licence
                  $"Organization: {part.Authors}"
                  [ notAnalyzed ()
                    if part.Hash <> "" then
                        "checksums", list [ checksum "SHA512" (hex (Convert.FromBase64String part.Hash)) ]
                    reference "purl" $"pkg:nuget/{part.Name}@{part.Version}" ] ]

    let fileId (path: string) = id ("File-" + path)

    let files =
        [ for path, bytes in contents do
              object
                  [ "SPDXID", text (fileId path)
                    "fileName", text ("./" + path)
                    "checksums",
                    list
                        [ checksum "SHA1" (hex (SHA1.HashData bytes)); checksum "SHA256" (hex (SHA256.HashData bytes)) ]
                    "licenseConcluded", text "NOASSERTION"
                    "copyrightText", text "NOASSERTION" ] ]

    let related (from: string) (kind: string) (target: string) =
        object [ "spdxElementId", text from; "relationshipType", text kind; "relatedSpdxElement", text target ]

    let relations =
        [ related "SPDXRef-DOCUMENT" "DESCRIBES" (id package)
          for path in paths do
              related (id package) "CONTAINS" (fileId path)
          related (id package) "CONTAINS" (id "wolfssl")
          for part in libraries do
              related (id package) "CONTAINS" (id part.Name) ]

    let document =
        object
            [ "spdxVersion", text "SPDX-2.3"
              "dataLicense", text "CC0-1.0"
              "SPDXID", text "SPDXRef-DOCUMENT"
              "name", text name
              "documentNamespace", text $"urn:lightway:sbom:{name}:{verification}"
              "creationInfo",
              object
                  [ "created", text (date.Value.ToString "yyyy-MM-ddTHH:mm:ssZ")
                    "creators", list [ text $"Tool: lightway-build-{version}" ] ]
              "packages", list (own :: wolfSsl :: others)
              "files", list files
              "relationships", list relations ]

    let options =
        JsonSerializerOptions(WriteIndented = true, Encoder = Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

    File.WriteAllText(folder </> $"{name}.spdx.json", document.ToJsonString options + "\n")

// Targets.

let private sums (folder: string) =
    let lines =
        [ for file in Directory.GetFiles folder |> Array.sortWith (fun a b -> String.CompareOrdinal(a, b)) do
              $"{hex (SHA256.HashData(File.ReadAllBytes file))}  {Path.GetFileName file}\n" ]

    File.WriteAllText(folder </> "SHA256SUMS", String.concat "" lines)

/// Everything, for both machines, in artifacts/dist.
let all () =
    let machines = [ here ] @ List.filter ((<>) here) [ x64; arm64 ]
    let folder = artifacts </> "dist"
    installTools machines
    Shell.cleanDir folder

    for program in programs do
        let built =
            [ for machine in machines -> machine, publish withoutSymbols program machine ]

        let ours = snd built.Head

        for machine, binary in built do
            let tree =
                deb [ "-Zxz"; "--threads-max=1" ] folder program machine binary ours (library machine)

            tarball folder tree program machine
            sbom folder tree program machine

    sums folder
    let written = File.ReadAllText(folder </> "SHA256SUMS")
    say $"{folder} has:\n{written}"

/// The .deb packages for this machine, neither compressed nor compiled ahead of time, in artifacts/package/quick: what the tests
/// install. They have the wolfSSL that the tests use.
let quick () =
    let folder = work </> "quick"
    installTools [ here ]
    Shell.cleanDir folder

    for program in programs do
        let binary = publish [ "-p:PublishReadyToRun=false" ] program here

        let wolfSsl =
            match Environment.GetEnvironmentVariable "LIGHTWAY_WOLFSSL" with
            | null
            | "" -> library here
            | path -> path

        let tree = deb [ "-Znone" ] folder program here binary binary wolfSsl
        sbom folder tree program here

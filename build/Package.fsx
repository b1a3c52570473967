/// What operators install: each program as one file with the .NET runtime in it and wolfSSL beside it, as .tar.gz and as .deb
/// with service units, with a bill of materials (SPDX 2.3). The same commit gives the same bytes, in whatever folder.
module Package

#load "Steps.fsx"
#load "Native.fsx"
#load "Parts.fsx"
#load "Bill.fsx"

open System
open System.IO
open System.Security.Cryptography
open System.Text
open Fake.IO
open Fake.IO.FileSystemOperators
open Steps
open Parts
open Bill

let private programs = [ "server"; "client" ]

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

/// Fails if the program contains the folder that it was built in, because the same commit would have other bytes elsewhere.
let private expectNoFolder (binary: string) =
    let bytes = File.ReadAllBytes binary

    for encoding in [ Encoding.UTF8; Encoding.Unicode ] do
        if bytes.AsSpan().IndexOf(ReadOnlySpan(encoding.GetBytes root)) >= 0 then
            failwith $"{binary} contains the name of the folder {root}: strings (binutils) shows where"

let private withoutSymbols = [ $"-p:ArtifactsPath={apart}"; "-p:DebugType=none" ]

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

/// What the program itself writes: its manual page and its completions.
let private generated (binary: string) (kind: string) : byte[] =
    Encoding.UTF8.GetBytes(outputOf binary [ "--generate"; kind ])

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
        copy tree read $"etc/default/{package}" (unit' $"{package}.default")
        copy tree read $"etc/sysctl.d/60-{package}.conf" (unit' $"{package}.sysctl")

    copy tree read $"{documents}/examples/credentials.conf" (unit' $"{program}-credentials.conf")

    let example =
        if program = "server" then
            "steering.conf"
        else
            "no-dns.conf"

    copy tree read $"{documents}/examples/{example}" (unit' example)

    copy tree read $"{documents}/README.Debian" (deployed $"debian/{program}.README")
    putText tree $"{documents}/copyright" (copyright program machine)
    putText tree $"{documents}/dotnet-notices.txt" (notices machine program)
    put tree read $"{documents}/changelog.gz" (compress (Encoding.UTF8.GetBytes(changelog package)))
    put tree read $"{documents}/CHANGELOG.md.gz" (compress (File.ReadAllBytes(root </> "CHANGELOG.md")))
    put tree read $"usr/share/man/man8/{package}.8.gz" (compress (generated ours "man"))

    for shell, path in
        [ "bash", $"usr/share/bash-completion/completions/{package}"
          "zsh", $"usr/share/zsh/vendor-completions/_{package}"
          "fish", $"usr/share/fish/vendor_completions.d/{package}.fish" ] do
        put tree read path (generated ours shell)

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

/// For other systems than Debian: the program, the library, the units, the manual page, the completions and the licences.
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
            | "usr/lib/systemd/system" -> Some("systemd" </> Path.GetFileName path)
            | "usr/share/man/man8" -> Some("man" </> Path.GetFileName path)
            | "usr/share/bash-completion/completions" -> Some($"completions/{package}.bash")
            | "usr/share/zsh/vendor-completions"
            | "usr/share/fish/vendor_completions.d" -> Some("completions" </> Path.GetFileName path)
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

        List.iter (snd >> expectNoFolder) built

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
        let binary = publish ("-p:PublishReadyToRun=false" :: withoutSymbols) program here
        expectNoFolder binary

        let wolfSsl =
            match Environment.GetEnvironmentVariable "LIGHTWAY_WOLFSSL" with
            | null
            | "" -> library here
            | path -> path

        let tree = deb [ "-Znone" ] folder program here binary binary wolfSsl
        sbom folder tree program here

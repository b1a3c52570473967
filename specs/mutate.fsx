// The mutation gate: each change in specs/mutants/ breaks the pure core or the engine in one point, and a law or a test must
// notice.
// `dotnet fsi specs/mutate.fsx [--only TEXT] [--seed N] [--superpackets N] [--parallel N] [--timeout SECONDS]`
// `--only core` and `--only engine` choose one of the two; other texts are looked for in the files and names of mutants.
// `--check` only looks whether each mutant finds its text in the code exactly once.
// Works on copies in artifacts/mutate; the report is artifacts/mutate/report.md. Exit code 0: every mutant was killed.

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO
open System.Runtime.InteropServices
open System.Text.RegularExpressions
open System.Threading

let root = Path.GetDirectoryName __SOURCE_DIRECTORY__
let folder = Path.Combine(root, "artifacts", "mutate")

// Mutants, from their text files.

type Mutant =
    {
        Name: string
        /// From the root, as `segmenter/Checksum.fs`.
        File: string
        /// Lists of laws to try first.
        Laws: string list
        Original: string
        Replacement: string
    }

/// What a mutant belongs to: each part is built and judged in its own way.
type Part =
    /// segmenter/ and protocol/: the laws judge, first those that the list names, then all.
    | Core
    /// tunnel/ and server/: the lists of tests that the list names judge, the simulation among them.
    | Engine

let partOf (mutant: Mutant) : Part =
    if mutant.File.StartsWith "tunnel/" || mutant.File.StartsWith "server/" then
        Engine
    else
        Core

/// The form is explained at the top of specs/mutants/segmenter.txt.
let mutantsOf (path: string) : Mutant list =
    let text (marker: char) (lines: string list) =
        lines
        |> List.filter (fun line -> line[0] = marker)
        |> List.map (fun line -> if line.Length > 2 then line[2..] else "")
        |> String.concat "\n"

    let rec read file laws (found: Mutant list) (lines: string list) =
        match lines with
        | line :: rest when line.StartsWith "file " -> read (line[5..].Trim()) [] found rest
        | line :: rest when line.StartsWith "laws " -> read file (List.ofArray (line[5..].Split ", ")) found rest
        | line :: rest when line.StartsWith "mutant " ->
            let isBody (line: string) =
                line.StartsWith '-' || line.StartsWith '+'

            let body = List.takeWhile isBody rest

            let mutant =
                { Name = line[7..].Trim()
                  File = file
                  Laws = laws
                  Original = text '-' body
                  Replacement = text '+' body }

            read file laws (mutant :: found) (List.skip body.Length rest)
        | line :: rest when String.IsNullOrWhiteSpace line || line.StartsWith '#' -> read file laws found rest
        | line :: _ -> failwith $"{path}: neither file, mutant nor text: {line}"
        | [] -> List.rev found

    read "" [] [] (List.ofArray (File.ReadAllLines path))

/// Faults of the list itself: it has to follow the code.
let faultsOf (mutants: Mutant list) : string list =
    [ for name, sameName in List.groupBy _.Name mutants do
          if sameName.Length > 1 then
              $"{name}: {sameName.Length} mutants have this name"

      for mutant in mutants do
          let code = File.ReadAllText(Path.Combine(root, mutant.File))
          let places = code.Split(mutant.Original).Length - 1

          if mutant.Original = "" || mutant.Original = mutant.Replacement then
              $"{mutant.Name}: changes nothing"
          elif places <> 1 then
              $"{mutant.Name}: its original occurs {places} times in {mutant.File}" ]

// Processes. Those still running are ended when we are.

let running = ConcurrentDictionary<int, Process>()

let endAll () =
    for child in running.Values do
        try
            child.Kill true
        with _ ->
            () // it ended meanwhile

let private signals =
    [ for signal in [ PosixSignal.SIGINT; PosixSignal.SIGTERM; PosixSignal.SIGHUP ] do
          PosixSignalRegistration.Create(
              signal,
              fun _ ->
                  endAll ()
                  exit 130
          ) ]

let private wolfSsl =
    match Environment.GetEnvironmentVariable "LIGHTWAY_WOLFSSL" with
    | null
    | "" -> Path.Combine(root, "artifacts", "native", "libwolfssl.so")
    | path -> path

/// Runs a program, shows `watch` each line of its output, and ends it when `watch` says so or the time is over.
/// The exit code, or None if it was ended.
let runWatched program (arguments: string list) workingFolder (timeout: TimeSpan) (watch: string -> bool) =
    let start =
        ProcessStartInfo(
            program,
            arguments,
            WorkingDirectory = workingFolder,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    for name, value in
        [ "MSBUILDDISABLENODEREUSE", "1" // MSBuild's nodes would outlive us
          "DOTNET_CLI_TELEMETRY_OPTOUT", "1"
          "DOTNET_NOLOGO", "1"
          "LIGHTWAY_WOLFSSL", wolfSsl
          "LIGHTWAY_SIMULATION_SECONDS", "0" // the kept seeds only
          "DOTNET_GCHeapHardLimit", "0x80000000" ] do // a mutant that allocates without end is to fail, not the machine
        start.Environment[name] <- value

    use child = new Process(StartInfo = start)
    use enough = new ManualResetEventSlim false

    let onLine (line: DataReceivedEventArgs) =
        if not (isNull line.Data) && watch line.Data then
            enough.Set()

    child.OutputDataReceived.Add onLine
    child.ErrorDataReceived.Add onLine
    child.Exited.Add(fun _ -> enough.Set())
    child.EnableRaisingEvents <- true
    child.Start() |> ignore
    running[child.Id] <- child
    child.BeginOutputReadLine()
    child.BeginErrorReadLine()
    let inTime = enough.Wait timeout

    let code =
        // `Exited` and a line may come together: what has ended has an exit code.
        if inTime && child.WaitForExit(TimeSpan.FromMilliseconds 200.) then
            child.WaitForExit() // until all its output was seen
            Some child.ExitCode
        else
            child.Kill true
            child.WaitForExit()
            None

    running.TryRemove child.Id |> ignore
    code

// One copy of the code for each worker; its builds are incremental.

let private sourcesOf part =
    match part with
    | Core ->
        [ "Directory.Build.props"
          "Directory.Packages.props"
          "global.json"
          "Lightway.Segmenter.fsproj"
          "Lightway.Protocol.fsproj"
          "locks"
          "segmenter"
          "protocol"
          "specs" ]
    | Engine ->
        // Tests read documents and projects, too.
        [ for path in Directory.EnumerateFileSystemEntries root do
              match Path.GetFileName path with
              | ".git"
              | "artifacts" -> ()
              | name -> name ]

let private isCode (path: string) =
    not (path.EndsWith ".fsx") && not (path.Contains "/specs/mutants/")

/// Makes `worker` hold the sources as they are. Files that did not change keep their time, so builds stay incremental.
let refresh part (worker: string) =
    let files =
        [ for name in sourcesOf part do
              let path = Path.Combine(root, name)

              if Directory.Exists path then
                  yield! Directory.EnumerateFiles(path, "*", SearchOption.AllDirectories) |> Seq.filter isCode
              else
                  path ]

    for file in files do
        let copy = Path.Combine(worker, Path.GetRelativePath(root, file))
        Directory.CreateDirectory(Path.GetDirectoryName copy) |> ignore

        if not (File.Exists copy) || File.ReadAllBytes copy <> File.ReadAllBytes file then
            File.Copy(file, copy, overwrite = true)
            File.SetLastWriteTimeUtc(copy, DateTime.UtcNow)

let private dotnet = Environment.ProcessPath

/// The program that judges, and the folder that it is in.
let private programOf part (worker: string) =
    let project = if part = Core then "Lightway.Specs" else "Lightway.Tests"
    let folder = Path.Combine(worker, "artifacts", "bin", project, "release")
    folder, Path.Combine(folder, project)

/// Builds what a change in `file` needs; all of it for "". None, or what the build said.
let build part worker (file: string) : string option =
    let output = ConcurrentQueue<string>()

    let keep line =
        output.Enqueue line
        false

    let step arguments =
        runWatched dotnet arguments worker (TimeSpan.FromMinutes 10.) keep = Some 0

    // The engine's projects are compiled alone: what depends on them does not change with what is inside of them.
    let project, isAlone =
        match part with
        | Core -> "specs/Lightway.Specs.fsproj", false
        | Engine when file.StartsWith "tunnel/" -> "Lightway.Tunnel.csproj", true
        | Engine when file <> "" -> "Lightway.Server.csproj", true
        | Engine -> "tests/Lightway.Tests.fsproj", false

    // An unused name must not refuse a mutant.
    let arguments =
        [ "build"
          project
          "-c"
          "Release"
          "--no-restore"
          "-m:1"
          "-v"
          "q"
          "-p:TreatWarningsAsErrors=false"
          "-p:RunAnalyzers=false"
          if isAlone then
              "--no-dependencies" ]

    // The program that judges gets what was built; the other assembly as it is without any mutant.
    let install () =
        if part = Engine then
            let folder = fst (programOf part worker)
            let unchanged = Path.Combine(worker, "unchanged")
            Directory.CreateDirectory unchanged |> ignore

            for name, assembly in [ "Lightway.Tunnel", "Lightway.Tunnel.dll"; "Lightway.Server", "lightway-server.dll" ] do
                let original = Path.Combine(unchanged, assembly)
                let target = Path.Combine(folder, assembly)

                if not isAlone then
                    File.Copy(target, original, overwrite = true)
                elif project.StartsWith name then
                    File.Copy(
                        Path.Combine(worker, "artifacts", "bin", name, "release", assembly),
                        target,
                        overwrite = true
                    )
                else
                    File.Copy(original, target, overwrite = true)

    if (file <> "" || step [ "restore"; project; "--locked-mode" ]) && step arguments then
        install ()
        None
    else
        Some(String.concat "\n" output)

// Verdicts.

type Verdict =
    /// By the law that failed first.
    | Killed of law: string
    | Hung
    | Crashed of exitCode: int
    | Survived
    | NotCompiled of output: string

type Settings =
    {
        Only: string
        Seed: uint64
        /// Superpackets that go through the kernel in each run.
        Superpackets: int
        Parallel: int
        Timeout: TimeSpan
        /// Ends before anything is built.
        IsCheck: bool
    }

let private failure = Regex @"ERR\] (?:Laws|Lightway)\.(.*) (failed|errored) in \d"
let private colours = Regex @"\x1b\[[0-9;]*m"

/// Runs a list of laws or tests of a worker's build, or all laws (""), up to the first that fails. Those of allocation do
/// not count: on a busy machine the runtime's own work may fail them, which says nothing about a mutant.
let judge part settings (worker: string) (laws: string) : Verdict =
    let program = snd (programOf part worker)
    let mutable law = None
    let mutable discounted = false

    let watch line =
        let found = failure.Match(colours.Replace(line, ""))
        let name = found.Groups[1].Value

        if found.Success && name.Contains "allocat" then
            discounted <- true
        elif found.Success && law.IsNone then
            law <- Some name

        law.IsSome

    let arguments =
        [ if part = Core then
              "--seed"
              string settings.Seed
              "--superpackets"
              string settings.Superpackets
          "--no-spinner"
          if laws <> "" then
              "--filter-test-list"
              laws ]

    let started = Stopwatch.StartNew()
    let code = runWatched program arguments worker settings.Timeout watch

    match law, code with
    | Some law, _ -> Killed law
    | None, Some 0 -> Survived
    | None, Some 1 when discounted -> Survived
    | None, Some code -> Crashed code
    | None, None when started.Elapsed >= settings.Timeout -> Hung
    | None, None -> failwith "ended for no reason"

let tryMutant part settings (worker: string) (mutant: Mutant) : Verdict =
    let path = Path.Combine(worker, mutant.File)
    let code = File.ReadAllText path
    File.WriteAllText(path, code.Replace(mutant.Original, mutant.Replacement))

    try
        match build part worker mutant.File with
        | Some output -> NotCompiled output
        | None ->
            (if part = Core then mutant.Laws @ [ "" ] else mutant.Laws)
            |> Seq.map (judge part settings worker)
            |> Seq.tryFind (_.IsSurvived >> not)
            |> Option.defaultValue Survived
    finally
        File.WriteAllText(path, code)

// The report.

let describe verdict =
    match verdict with
    | Killed law -> law
    | Hung -> "(no end in time)"
    | Crashed code -> $"(exit code {code})"
    | Survived -> "**survived**"
    | NotCompiled _ -> "**did not compile**"

let private isKilled verdict =
    match verdict with
    | Killed _
    | Hung
    | Crashed _ -> true
    | Survived
    | NotCompiled _ -> false

let private count (holds: Verdict -> bool) (results: (Mutant * Verdict) list) =
    results |> List.filter (snd >> holds) |> List.length

let private totals (results: (Mutant * Verdict) list) =
    let notCompiled = count _.IsNotCompiled results

    let error =
        if notCompiled > 0 then
            $", {notCompiled} did not compile"
        else
            ""

    $"{List.length results} mutants: {count isKilled results} killed, {count _.IsSurvived results} survived{error}"

let private writeReport settings (results: (Mutant * Verdict) list) =
    let today = DateTime.UtcNow.ToString "yyyy-MM-dd"
    let cell (text: string) = text.Replace("|", "\\|")

    let lines =
        [ "# Mutation report"
          ""
          "Each mutant breaks the pure core or the engine in one point. `specs/mutants/` has the changes; the target `Mutate` makes"
          "them, rebuilds, and runs the laws up to the first that fails: those next to the code, then all, the kernel oracle among"
          "them. For the engine it runs the kept seeds of the simulation, and lists of tests. Laws run side by side, so it need not"
          "be the same one next time; those of allocation do not count. A mutant that survived is a gap in the laws."
          ""
          $"{today}, seed {settings.Seed}, {settings.Superpackets} superpackets for the kernel."
          $"**{totals results}.**"
          ""
          "| File | Mutant | Killed by |"
          "| --- | --- | --- |"
          for mutant, verdict in results do
              $"| `{mutant.File}` | {cell mutant.Name} | {cell (describe verdict)} |"
          "" ]

    let path = Path.Combine(folder, "report.md")
    File.WriteAllText(path, String.concat "\n" lines)
    path

// The run.

let private judgePart part settings (mutants: Mutant list) =
    let queue = ConcurrentQueue(List.indexed mutants)
    let results = ConcurrentDictionary<int, Verdict>()

    let work worker () =
        let mutable item = Unchecked.defaultof<_>

        while queue.TryDequeue &item do
            let index, mutant = item
            let verdict = tryMutant part settings worker mutant
            results[index] <- verdict
            let word = if isKilled verdict then "killed  " else "SURVIVED"
            printfn $"[{results.Count}/{mutants.Length}] {word} {mutant.File}: {mutant.Name} — {describe verdict}"

            match verdict with
            | NotCompiled output -> printfn $"{output}"
            | _ -> ()

    let workers =
        [ for number in 1 .. settings.Parallel do
              Path.Combine(folder, (if part = Core then $"worker{number}" else $"engine{number}")) ]

    let lists =
        match part with
        | Core -> [ "" ]
        | Engine -> mutants |> List.collect _.Laws |> List.distinct

    List.iter (refresh part) workers
    printfn "mutate: building, and running the laws without any mutant"

    let unchanged =
        workers
        |> List.map (fun worker -> build part worker "")
        |> List.choose id
        |> List.tryHead
        |> Option.map NotCompiled
        |> Option.defaultWith (fun () ->
            lists
            |> Seq.map (judge part settings workers.Head)
            |> Seq.tryFind (_.IsSurvived >> not)
            |> Option.defaultValue Survived)

    match unchanged with
    | Survived ->
        let threads =
            [ for worker in workers do
                  let thread = Thread(work worker)
                  thread.Start()
                  thread ]

        threads |> List.iter _.Join()
        Ok [ for index, mutant in List.indexed mutants -> mutant, results[index] ]
    | NotCompiled output -> Error output
    | other -> Error $"the laws fail without any mutant: {describe other}"

let private judgeAll settings (mutants: Mutant list) =
    [ for part, mutants in List.groupBy partOf mutants do
          judgePart part settings mutants ]
    |> List.reduce (fun one other ->
        match one, other with
        | Ok one, Ok other -> Ok(one @ other)
        | Error message, _
        | _, Error message -> Error message)

let private run settings =
    let all =
        Directory.GetFiles(Path.Combine(root, "specs", "mutants"), "*.txt")
        |> Array.sort
        |> List.ofArray
        |> List.collect mutantsOf

    let isChosen (mutant: Mutant) =
        match settings.Only with
        | "core" -> partOf mutant = Core
        | "engine" -> partOf mutant = Engine
        | text -> $"{mutant.File}: {mutant.Name}".Contains text

    let chosen = List.filter isChosen all

    match faultsOf all with
    | [] when chosen.IsEmpty ->
        eprintfn $"mutate: no mutant has '{settings.Only}' in its file or name"
        2
    | [] when settings.IsCheck ->
        printfn $"mutate: each of {all.Length} mutants finds its text exactly once"
        0
    | [] ->
        let started = Stopwatch.StartNew()

        match judgeAll settings chosen with
        | Error message ->
            eprintfn $"mutate: {message}"
            2
        | Ok results ->
            for mutant, verdict in results do
                if not (isKilled verdict) then
                    printfn $"mutate: {mutant.File}: {mutant.Name}: {describe verdict}"

            let path = writeReport settings results
            printfn $"mutate: {totals results}, in {started.Elapsed.TotalMinutes:F1} minutes; {path}"
            if List.forall (snd >> isKilled) results then 0 else 1
    | faults ->
        for fault in faults do
            eprintfn $"mutate: {fault}"

        2

let rec private parse settings arguments =
    match arguments with
    | "--check" :: rest -> parse { settings with IsCheck = true } rest
    | "--only" :: value :: rest -> parse { settings with Only = value } rest
    | "--seed" :: value :: rest -> parse { settings with Seed = uint64 value } rest
    | "--superpackets" :: value :: rest ->
        parse
            { settings with
                Superpackets = int value }
            rest
    | "--parallel" :: value :: rest -> parse { settings with Parallel = int value } rest
    | "--timeout" :: value :: rest ->
        parse
            { settings with
                Timeout = TimeSpan.FromSeconds(float value) }
            rest
    | [] -> settings
    | other :: _ -> failwith $"mutate: what is {other}?"

let private defaults =
    { Only = ""
      Seed = 20260801UL
      Superpackets = 150
      Parallel = min 2 Environment.ProcessorCount
      Timeout = TimeSpan.FromMinutes 10.
      IsCheck = false }

exit (run (parse defaults (List.tail (List.ofArray fsi.CommandLineArgs))))

/// Programs: short ones that are waited for, long ones inside a namespace whose output goes to a file.
namespace Lightway.Lab

open System
open System.Diagnostics
open System.IO
open System.Threading

/// Something the lab needs did not work. The message is for a person.
exception LabException of message: string with
    override this.Message = this.message

/// Waiting for a condition that something else brings about.
[<RequireQualifiedAccess>]
module Wait =
    /// Asks every 20 ms until `condition` holds. False when it did not within `timeout`.
    let until (timeout: TimeSpan) (condition: unit -> bool) : bool =
        let clock = Stopwatch.StartNew()
        let mutable isMet = condition ()

        while not isMet && clock.Elapsed < timeout do
            Thread.Sleep 20
            isMet <- condition ()

        isMet

[<RequireQualifiedAccess>]
module Shell =
    /// Runs a program to its end: exit code, standard output, standard error.
    let tryRun (program: string) (arguments: string list) : struct (int * string * string) =
        let info =
            ProcessStartInfo(program, arguments, RedirectStandardOutput = true, RedirectStandardError = true)

        use running =
            try
                Process.Start info
            with :? ComponentModel.Win32Exception as error ->
                raise (LabException $"{program} cannot be run: {error.Message}")

        let errors = running.StandardError.ReadToEndAsync()
        let output = running.StandardOutput.ReadToEnd()
        running.WaitForExit()
        struct (running.ExitCode, output, errors.Result)

    /// Runs a program that must succeed; its standard output.
    let run (program: string) (arguments: string list) : string =
        match tryRun program arguments with
        | struct (0, output, _) -> output
        | struct (code, _, errors) ->
            let line = String.concat " " (program :: arguments)
            raise (LabException $"`{line}` failed with exit code {code}: {errors.Trim()}")

    /// `ip` with arguments separated by single spaces; its standard output.
    let ip (arguments: string) : string =
        run "ip" (List.ofArray (arguments.Split ' '))

    /// A program's standard output when run inside a namespace; it must succeed.
    let inside (netns: string) (program: string) (arguments: string list) : string =
        run "ip" ([ "netns"; "exec"; netns; program ] @ arguments)

/// A long-running program inside a namespace. Its standard output and error go to `LogFile`.
type Child private (name: string, running: Process, logFile: string) =

    member _.Name = name
    member _.LogFile = logFile
    member _.Pid = running.Id
    member _.HasExited = running.HasExited
    /// Valid once HasExited. 128 + n when signal n ended it.
    member _.ExitCode = running.ExitCode
    member _.Log = if File.Exists logFile then File.ReadAllText logFile else ""

    /// The first error and the end of the log, for an error message: a backtrace may be longer than the end.
    member this.LogTail =
        let lines = this.Log.TrimEnd().Split '\n'
        let hidden = max 0 (lines.Length - 15)

        let isError (line: string) =
            [ "error"; "panic"; "fatal"; "unhandled exception" ]
            |> List.exists (fun word -> line.Contains(word, StringComparison.OrdinalIgnoreCase))

        let first =
            match Array.tryFind isError (Array.take hidden lines) with
            | Some line -> [| line; "…" |]
            | None -> [||]

        String.concat "\n" (Array.append first (Array.skip hidden lines))

    /// User and system time of all its threads so far, in seconds (proc_pid_stat(5), fields 14 and 15, in 1/100 s).
    member _.CpuTimes: struct (float * float) =
        let stat = File.ReadAllText $"/proc/{running.Id}/stat"
        // The second field is the program's name in parentheses and may hold anything; the third follows the last one.
        let fields = stat.Substring(stat.LastIndexOf ')' + 2).Split ' '
        struct (float fields[11] / 100.0, float fields[12] / 100.0)

    /// User plus system time of all its threads so far, in seconds.
    member this.CpuSeconds =
        let struct (user, system) = this.CpuTimes
        user + system

    /// Of its threads whose name begins like this: seconds on a processor, and seconds that they wanted one and had none
    /// (/proc/PID/task/TID/schedstat, Documentation/scheduler/sched-stats.rst, in ns).
    member _.ThreadSeconds(nameStart: string) : struct (float * float) =
        /// None: the thread has ended meanwhile.
        let read (task: string) (file: string) =
            try
                Some(File.ReadAllText(Path.Combine(task, file)))
            with :? IOException ->
                None

        let tasks =
            [ for task in Directory.GetDirectories $"/proc/{running.Id}/task" do
                  match read task "comm", read task "schedstat" with
                  | Some name, Some times when name.StartsWith nameStart -> times.Split ' '
                  | _ -> () ]

        let sum (field: int) =
            tasks |> List.sumBy (fun fields -> float fields[field] / 1e9)

        struct (sum 0, sum 1)

    member _.Signal(signal: Netns.Signal) =
        if not running.HasExited then
            Netns.signal running.Id signal |> ignore

    /// False when it still runs after `timeout`.
    member _.WaitForExit(timeout: TimeSpan) = running.WaitForExit timeout

    /// Asks it to end, and ends it by force when it has not within 20 s. True when it ended on request.
    member this.Stop() =
        this.Signal Netns.Signal.Terminate
        let isWilling = this.WaitForExit(TimeSpan.FromSeconds 20.0)

        if not isWilling then
            this.Signal Netns.Signal.Kill
            this.WaitForExit(TimeSpan.FromSeconds 5.0) |> ignore

        isWilling

    /// Waits until the log has this text: a program's lines come a moment after what they report. Fails when it has ended or
    /// 30 s are over, and the log does not have it.
    member this.AwaitLog (text: string) (meaning: string) =
        let isThere () = this.Log.Contains text

        Wait.until (TimeSpan.FromSeconds 30.0) (fun () -> this.HasExited || isThere ()) |> ignore

        if not (isThere ()) then
            raise (LabException $"{name}, {meaning}: the log does not have '{text}'. Log:\n{this.LogTail}")

    /// Waits for a condition, but fails as soon as the program has ended, and when `timeout` is over.
    member this.Await (timeout: TimeSpan) (expectation: string) (condition: unit -> bool) =
        let isOver = Wait.until timeout (fun () -> this.HasExited || condition ())

        if this.HasExited then
            raise (
                LabException $"{name} ended with exit code {this.ExitCode} before {expectation}. Log:\n{this.LogTail}"
            )

        if not isOver then
            raise (LabException $"{name}: not {expectation} after {timeout.TotalSeconds} s. Log:\n{this.LogTail}")

    /// Starts a program inside a namespace. The shell, `ip` and `env` replace themselves, so that Pid is the program's. It
    /// takes signals as it does by default, even if this process was started to ignore some, as by nohup(1).
    static member Start (netns: string) (name: string) (program: string) (arguments: string list) (logFile: string) =
        let script = "log=$1; shift; exec \"$@\" </dev/null >\"$log\" 2>&1"
        let signals = [ "env"; "--default-signal=HUP,INT,QUIT" ]

        let shell =
            [ "netns"; "exec"; netns ] @ signals @ [ "sh"; "-c"; script; "sh"; logFile; program ]

        new Child(name, Process.Start(ProcessStartInfo("ip", shell @ arguments)), logFile)

    interface IDisposable with
        member this.Dispose() =
            this.Stop() |> ignore
            running.Dispose()

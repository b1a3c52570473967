namespace Lightway.Bench.Matrix

open System
open System.Globalization
open System.IO
open System.Runtime.InteropServices
open Lightway.Lab

/// Where and when, for whoever reads the figures later. The JSON file has these fields.
[<CLIMutable>]
type Machine =
    { Cpu: string
      Cores: int
      MemoryGigabytes: int
      Kernel: string
      Runtime: string // of .NET
      LoadAtStart: float // load average of the last minute: what else the machine was doing
      Commit: string // of this repository; with a plus when files differ from it
      Date: string } // UTC, ISO 8601

/// One run of the benchmark, as it is written to artifacts/bench/matrix.json.
[<CLIMutable>]
type Report =
    { Machine: Machine
      Seconds: float
      WarmUp: float
      Rounds: int
      OfferedMegabits: float
      Congestion: string
      Yardstick: string // name and version; empty when it did not take part
      Other: string // paths of the other implementation's programs; empty likewise
      Rows: Row list
      Profiles: Profile list option } // None: perf was not there

[<RequireQualifiedAccess>]
module Machine =
    let private commit () =
        let git arguments =
            try
                match Shell.tryRun "git" arguments with
                | struct (0, output, _) -> output.Trim()
                | _ -> ""
            with LabException _ ->
                "" // no git here

        match git [ "rev-parse"; "--short=12"; "HEAD" ] with
        | "" -> "unknown"
        | hash when git [ "status"; "--porcelain"; "--untracked-files=no" ] = "" -> hash
        | hash -> hash + "+"

    let current () : Machine =
        let model =
            File.ReadLines "/proc/cpuinfo"
            |> Seq.tryFind _.StartsWith("model name")
            |> Option.map (fun line -> line.Substring(line.IndexOf ':' + 1).Trim())

        { Cpu = defaultArg model (string RuntimeInformation.ProcessArchitecture)
          Cores = Environment.ProcessorCount
          MemoryGigabytes = int (round (float (GC.GetGCMemoryInfo().TotalAvailableMemoryBytes) / float (1 <<< 30)))
          Kernel = (File.ReadAllText "/proc/sys/kernel/osrelease").Trim()
          Runtime = RuntimeInformation.FrameworkDescription
          LoadAtStart = Double.Parse((File.ReadAllText "/proc/loadavg").Split(' ')[0], CultureInfo.InvariantCulture)
          Commit = commit ()
          Date = DateTime.UtcNow.ToString "yyyy-MM-ddTHH:mmZ" }

namespace Lightway.Bench.Matrix

open System
open System.IO
open System.Text.RegularExpressions
open Lightway.Lab

/// Samples of one part of a stage.
[<CLIMutable>]
type Share =
    { Stage: string
      Part: string
      Samples: int }

/// Where a server's CPU time went during one transfer, by sampling. The JSON file has these fields.
[<CLIMutable>]
type Profile =
    { Cell: string
      Variant: string
      Samples: int
      Shares: Share list } // stages in the order of `Profile.stages`, parts from the largest down

/// One line of a sampled stack.
type Frame =
    { Symbol: string
      Object: string // file, or a name in brackets
      IsKernel: bool }

[<RequireQualifiedAccess>]
module Profile =
    let private frame =
        Regex(@"^\s+([0-9a-f]+) (.*) \(([/\[].*)\)$", RegexOptions.Compiled)

    /// Stacks, innermost frame first, of `perf script -F comm,ip,sym,dso`: a line with the thread's name, an indented line
    /// for each frame, an empty line. Addresses of Linux's own half begin with ffff (x86-64 and arm64).
    let parse (text: string) : Frame list list =
        [ for sample in text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries) do
              if not (String.IsNullOrWhiteSpace sample) then
                  [ for line in sample.Split '\n' do
                        let found = frame.Match line

                        if found.Success then
                            let address = found.Groups[1].Value

                            { Symbol = found.Groups[2].Value
                              Object = found.Groups[3].Value
                              IsKernel = address.Length = 16 && address.StartsWith "ffff" } ] ]

    let private matches (pattern: string) =
        let regex = Regex(pattern, RegexOptions.Compiled)
        fun (text: string) -> regex.IsMatch text

    let private aes = "AES-GCM"
    let private managed = "managed"
    let private runtime = "runtime, libc"
    let private otherCalls = "other calls"
    let private unknown = "unknown"

    /// All stages, in the order in which they are shown: user space, system calls, the rest.
    let stages =
        [ aes
          managed
          runtime
          "TUN read"
          "sendmmsg"
          "recvmmsg"
          "TUN write"
          "epoll_wait"
          otherCalls
          "interrupts"
          unknown ]

    // What the kernel calls the entry of a system call, some of which are inlined into the next function, and what libc
    // calls it: on its way in and out the kernel has no frame with a name. The server reads and writes by read(2) and
    // writev(2) nothing but its TUN queue, but for a wake-up now and then.
    let private call =
        Regex(
            @"^(?:__x64_sys_|__arm64_sys_|ksys_|do_|__sys_|__GI_)?_*(readv?|writev?|sendm?msg|recvm?msg|epoll_p?wait)$",
            RegexOptions.Compiled
        )

    let private isInterrupt =
        matches "^(asm_sysvec|asm_exc|asm_common_int|irqentry|el[01]t?_64_irq)"

    let private isSoftirq = matches "^(handle_softirqs|__do_softirq|do_softirq)"

    let private isCall =
        matches "^(do_syscall_64|entry_SYSCALL|x64_sys_call|syscall_|el0_svc)"

    /// Parts of the kernel's work: the innermost frame that one knows decides, so what has no name here counts for its caller.
    let private kernelParts =
        [ "copying", @"copy_(from|to)_iter|copy_page_|^_*memcpy|copy_user|skb_copy_|datagram_iter|check_object_size"
          "segmenting", "gso_segment|skb_segment"
          "checksum", "csum|checksum"
          "memory", "alloc|free|slab|page_frag|get_page|put_page|skb_release|consume_skb|skb_cache|defer"
          "waking", "wake_up|poll_callback|sock_def_|write_space|ttwu"
          "scheduling", "^_*schedule($|_)|^finish_task_switch|^_*cond_resched|hrtimer|^exit_to_user_mode_loop"
          "network",
          "^_*(ip_|ip6|ipv|udp|tcp|inet|dev_|netif|net_|veth|fib_|nf_|neigh|eth_|skb|sk_|sock|tun_|napi|xmit|validate_x|"
          + "sch_|qdisc|rt_|dst_|enqueue_to_b|process_b)" ]
        |> List.map (fun (part, pattern) -> part, matches pattern)

    let private ofKernel (names: string list) (caller: string) : string * string =
        let stage =
            List.rev names @ [ caller ]
            |> List.tryPick (fun name ->
                let found = call.Match name
                if found.Success then Some found.Groups[1].Value else None)
            |> function
                | Some("read" | "readv") -> "TUN read"
                | Some("write" | "writev") -> "TUN write"
                | Some("sendmsg" | "sendmmsg") -> "sendmmsg"
                | Some("recvmsg" | "recvmmsg") -> "recvmmsg"
                | Some _ -> "epoll_wait"
                | None when List.exists isCall names -> otherCalls
                | None when List.exists isInterrupt names -> "interrupts"
                | None -> unknown

        let part =
            if List.exists isSoftirq names then
                "softirq"
            elif stage <> "interrupts" && List.exists isInterrupt names then
                "interrupts"
            else
                names
                |> List.tryPick (fun name -> kernelParts |> List.tryFind (fun (_, isOf) -> isOf name) |> Option.map fst)
                |> Option.defaultValue "other"

        stage, part

    // The runtime's perf map names a method `RETURN [ASSEMBLY] NAMESPACE.TYPE::METHOD(ARGUMENTS)[TIER]`.
    let private methodType = Regex(@"\] ([\w.`]+)\S*?::", RegexOptions.Compiled)

    let private ofManaged (symbol: string) =
        match (methodType.Match symbol).Groups[1].Value with
        | "" -> if symbol = "[unknown]" then "no name" else "stubs"
        | "dynamicClass" -> "P/Invoke"
        | name when name.StartsWith "Lightway." -> name.Substring(name.LastIndexOf '.' + 1)
        | _ -> ".NET libraries"

    let private ofUser (leaf: Frame) : string * string =
        let file = Path.GetFileName leaf.Object

        if file.StartsWith "libwolfssl" then
            // Labels of the assembler are symbols too. The loop over 128 bytes at a time does AES and GHASH interleaved.
            aes,
            (if leaf.Symbol.EndsWith "ghash_128" then
                 "128-byte loop"
             else
                 "per packet")
        elif file.StartsWith "libIPSec_MB" then
            aes, "IPsec-MB"
        elif file.StartsWith "perf-" || leaf.Object.StartsWith "/memfd:doublemapper" then
            managed, ofManaged leaf.Symbol
        elif file.EndsWith ".dll" then
            managed, ".NET libraries"
        elif file.StartsWith "lib" || file.StartsWith "ld-" || file = "[vdso]" then
            runtime, (file.Split '.')[0]
        else
            unknown, file

    /// Stage and part of one stack, innermost frame first.
    let classify (stack: Frame list) : string * string =
        match stack with
        | [] -> unknown, "no stack"
        | leaf :: _ when leaf.IsKernel ->
            let names = stack |> List.takeWhile _.IsKernel |> List.map _.Symbol
            let caller = stack |> List.tryItem names.Length |> Option.map _.Symbol
            ofKernel names (defaultArg caller "")
        | leaf :: _ -> ofUser leaf

    /// Stacks counted. Law: the samples of all shares are as many as the stacks.
    let sum (stacks: Frame list list) : Share list =
        stacks
        |> List.countBy classify
        |> List.map (fun ((stage, part), samples) ->
            { Stage = stage
              Part = part
              Samples = samples })
        |> List.sortBy (fun share -> List.findIndex ((=) share.Stage) stages, -share.Samples)

    /// Of shares together.
    let samples (shares: Share list) : int =
        shares |> List.sumBy (fun share -> share.Samples)

    /// Of a cell and a variant; None as well when it has no sample.
    let find (profiles: Profile list) (cell: string) (variant: string) : Profile option =
        profiles
        |> List.tryFind (fun profile -> profile.Cell = cell && profile.Variant = variant && profile.Samples > 0)

    /// perf is here and runs, and this is root, who sees the kernel's symbols.
    let isPossible () =
        Environment.IsPrivilegedProcess
        && (try
                match Shell.tryRun "perf" [ "--version" ] with
                | struct (code, _, _) -> code = 0
            with LabException _ ->
                false)

    /// Runs `start` so that the .NET programs it starts name their compiled code in `folder`/perf-PID.map: PerfMapEnabled=3
    /// is the map alone. Without EnableWriteXorExecute=0 the code lies in a file mapping, for which perf reads no map.
    let withNames (folder: string) (start: unit -> 'started) : 'started =
        let names =
            [ "PerfMapEnabled", "3"; "PerfMapJitDumpPath", folder; "EnableWriteXorExecute", "0" ]

        for name, value in names do
            Environment.SetEnvironmentVariable($"DOTNET_{name}", value)

        try
            start ()
        finally
            for name, _ in names do
                Environment.SetEnvironmentVariable($"DOTNET_{name}", null)

    /// Samples all threads of a process for so long. Raises LabException when perf cannot.
    let take (folder: string) (seconds: float) (pid: int) : Frame list list =
        let data = Path.Combine(folder, "perf.data")
        let how = [ "-q"; "-N"; "-e"; "cpu-clock"; "-F"; "4999"; "--call-graph"; "fp" ]

        Shell.run "perf" ("record" :: how @ [ "-p"; $"{pid}"; "-o"; data; "--"; "sleep"; $"{seconds}" ])
        |> ignore

        let map = $"perf-{pid}.map"
        let sought = Path.Combine("/tmp", map) // where perf looks

        try
            File.Copy(Path.Combine(folder, map), sought, overwrite = true)
            parse (Shell.run "perf" [ "script"; "-i"; data; "-F"; "comm,ip,sym,dso" ])
        finally
            File.Delete sought

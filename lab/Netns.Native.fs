/// Network namespaces, for threads: a socket belongs for life to the namespace of the thread that made it.
/// All native declarations of the lab are in this file.
[<RequireQualifiedAccess>]
module Lightway.Lab.Netns

open System
open System.ComponentModel
open System.Runtime.InteropServices
open System.Threading
open System.Threading.Tasks

module private Libc =
    [<Literal>]
    let CloneNewNet = 0x40000000 // CLONE_NEWNET, linux/sched.h

    [<DllImport("libc", SetLastError = true)>]
    extern int setns(int fd, int nstype)

    [<DllImport("libc", SetLastError = true)>]
    extern int kill(int pid, int signal)

/// Signal numbers (signal(7); the same on x86-64 and arm64).
type Signal =
    | Hangup = 1
    | Interrupt = 2
    | Quit = 3
    | Kill = 9
    | User1 = 10
    | Terminate = 15
    | Continue = 18
    | Stop = 19

/// Sends a signal to one process. False when there is no such process; other errors raise Win32Exception.
let signal (pid: int) (signal: Signal) : bool =
    if Libc.kill (pid, int signal) = 0 then
        true
    else
        match Marshal.GetLastPInvokeError() with
        | 3 -> false // ESRCH
        | errno -> raise (Win32Exception errno)

/// Moves the calling thread into the namespace that `ip netns add` made under this name.
let private enter (name: string) =
    use handle = IO.File.OpenHandle $"/run/netns/{name}"

    if Libc.setns (int (handle.DangerousGetHandle()), Libc.CloneNewNet) <> 0 then
        raise (Win32Exception(Marshal.GetLastPInvokeError(), $"setns into {name}"))

/// Starts `body` on a thread of its own inside the namespace. The thread ends with it, so no other work ever runs there.
let start (name: string) (body: unit -> 'result) : Task<'result> =
    let outcome =
        TaskCompletionSource<'result>(TaskCreationOptions.RunContinuationsAsynchronously)

    let main () =
        try
            enter name
            outcome.SetResult(body ())
        with error ->
            outcome.SetException error

    Thread(main, IsBackground = true, Name = $"in {name}").Start()
    outcome.Task

/// Runs `body` inside the namespace and waits for it. What `body` raises is raised here.
let run (name: string) (body: unit -> 'result) : 'result =
    (start name body).GetAwaiter().GetResult()

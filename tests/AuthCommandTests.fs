/// Programs of the operator's that check passwords.
module Lightway.Tests.AuthCommandTests

open System
open System.Diagnostics
open System.IO
open System.Text
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Server.Auth

let private command (timeout: float) (words: string list) =
    AuthCommand(List.toArray words, TimeSpan.FromSeconds timeout)

let private shell script = [ "/bin/sh"; "-c"; script ]

let private check (command: AuthCommand) (user: string) (password: string) =
    command.Check(user, ReadOnlySpan(Encoding.UTF8.GetBytes password))

/// The answer of a script, within a minute.
let private answer script =
    check (command 60. (shell script)) "me" "secret"

let private inFolder (body: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "lightway-command"

    try
        body folder.FullName
    finally
        folder.Delete true

let private isGone (pid: string) =
    // A zombie has no memory any more; its parent, the machine's init, may take its time.
    Wait.until (TimeSpan.FromSeconds 30.) (fun () ->
        try
            File.ReadAllText($"/proc/{pid}/stat").Contains ") Z "
        with :? IOException ->
            true)

let tests =
    testList
        "AuthCommand"
        [ test "a program gets user and password, a line each and nothing else, and decides by its exit code" {
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "input")
                  Expect.equal (answer $"cat > {file}").Verdict AuthVerdict.Allowed "0"
                  Expect.equal (File.ReadAllText file) "me\nsecret\n" "its input"
                  Expect.equal (answer "cat > /dev/null; exit 1").Verdict AuthVerdict.Refused "1"

                  let script =
                      "read user; read password; [ \"$user\" = me ] && [ \"$password\" = secret ]"

                  let program = command 60. (shell script)
                  Expect.equal (check program "me" "secret").Verdict AuthVerdict.Allowed "right"
                  Expect.equal (check program "me" "Secret").Verdict AuthVerdict.Refused "wrong"
                  Expect.equal (check program "you" "secret").Means LoginMeans.Command "means")
          }

          test "no shell sees what a client sends" {
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "made")
                  let program = command 60. (shell "cat > /dev/null")

                  for text in [ $"; touch {file}"; $"$(touch {file})"; $"`touch {file}`"; $"| touch {file}" ] do
                      Expect.equal (check program text text).Verdict AuthVerdict.Allowed text

                  Expect.isFalse (File.Exists file) "nothing was run")
          }

          for script, part in [ "exit 2", "ended with 2"; "exit 127", "ended with 127"; "kill -9 $$", "ended with 137" ] do
              test $"`{script}` is a check that failed" {
                  let answer = answer script
                  Expect.equal answer.Verdict AuthVerdict.Failed ""
                  Expect.stringContains answer.Error part ""
              }

          test "a program that hangs is killed at the timeout, and so are its children" {
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "child")
                  let script = $"sleep 300 & echo $! > {file}; echo $$ >> {file}; wait"

                  // On a busy machine the shell may not have come to its lines by then.
                  let rec hang (seconds: float) : string[] =
                      let clock = Stopwatch.StartNew()
                      let answer = check (command seconds (shell script)) "me" "secret"
                      Expect.equal answer.Verdict AuthVerdict.Failed ""
                      Expect.stringContains answer.Error $"did not answer within {seconds} s" ""
                      Expect.isLessThan clock.Elapsed.TotalSeconds (seconds + 20.) "s"
                      let pids = if File.Exists file then File.ReadAllLines file else [||]

                      if pids.Length < 2 && seconds < 30. then
                          hang (4. * seconds)
                      else
                          pids

                  let pids = hang 0.5
                  Expect.hasLength pids 2 "the shell and its child"

                  for pid in pids do
                      Expect.isTrue (isGone pid) $"{pid} is gone")
          }

          test "what a program prints does not hold it up, and is not kept" {
              let answer = answer "head -c 30000 /dev/zero; head -c 30000 /dev/zero >&2"
              Expect.equal answer.Verdict AuthVerdict.Allowed $"{answer.Error}"
          }

          test "a program that prints without end is ended" {
              let clock = Stopwatch.StartNew()

              for script in [ "yes; exit 0"; "exec yes"; "yes >&2; exit 1" ] do
                  let answer = answer script
                  Expect.equal answer.Verdict AuthVerdict.Failed script
                  Expect.stringContains answer.Error "printed more than 65536 bytes" script

              // Before the timeout of one.
              Expect.isLessThan clock.Elapsed.TotalSeconds 50. "s"
          }

          test "a program may ignore its input, close it, or end at once" {
              for script in [ "exit 0"; "exec 0<&-; sleep 0.1"; "sleep 0.1" ] do
                  Expect.equal (answer script).Verdict AuthVerdict.Allowed script
          }

          test "a child that a program leaves behind holds nothing up, and no descriptor" {
              let descriptors () =
                  Directory.GetFiles("/proc/self/fd").Length

              answer "exit 0" |> ignore
              let before = descriptors ()
              let clock = Stopwatch.StartNew()

              for _ in 1..5 do
                  Expect.equal (answer "sleep 50 & exit 0").Verdict AuthVerdict.Allowed ""

              // Long before the first child ends.
              Expect.isLessThan clock.Elapsed.TotalSeconds 40. "s"

              Expect.isTrue
                  (Wait.until (TimeSpan.FromSeconds 30.) (fun () -> descriptors () <= before + 3))
                  $"{descriptors ()} descriptors, {before} before"
          }

          test "a program that does not exist, or can't be run, is a check that failed" {
              for program in [ "/nonexistent/program"; "/etc/passwd"; "/" ] do
                  let answer = check (command 1. [ program ]) "me" "secret"
                  Expect.equal answer.Verdict AuthVerdict.Failed program
                  Expect.stringContains answer.Error "can't be started" program
          }

          test "a program has an environment with nothing but PATH, and no descriptor of ours" {
              inFolder (fun folder ->
                  Environment.SetEnvironmentVariable("LW_TEST_SECRET", "x")
                  let variables = Path.Combine(folder, "environment")
                  let descriptors = Path.Combine(folder, "descriptors")
                  let script = $"cat /proc/$$/environ > {variables}; ls /proc/$$/fd > {descriptors}"
                  Expect.equal (answer script).Verdict AuthVerdict.Allowed ""

                  let names =
                      [ for entry in File.ReadAllText(variables).Split('\000', StringSplitOptions.RemoveEmptyEntries) ->
                            entry.Split('=')[0] ]

                  Expect.equal names [ "PATH" ] "variables"

                  // The shell keeps descriptor 10 or above for itself in some cases.
                  let numbers =
                      File.ReadAllLines descriptors |> Array.map int |> Array.filter (fun fd -> fd < 10)

                  Expect.all numbers (fun fd -> fd <= 2) $"%A{numbers}")
          }

          test "a line feed in user or password can't be sent, and is refused without asking" {
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "asked")
                  let program = command 60. (shell $"touch {file}")

                  for user, password in [ "me\nsecret", "x"; "me", "a\nb"; "\n", ""; "", "\n" ] do
                      let answer = check program user password
                      Expect.equal (answer.Verdict, answer.Means) (AuthVerdict.Refused, LoginMeans.Unsendable) ""

                  Expect.isFalse (File.Exists file) "not asked")
          }

          test "a user of the file is the file's, every other one the program's" {
              let hash = LibCrypt.Hash(ReadOnlySpan "secret"B, "$1$salt$")

              let authenticator =
                  Authenticator.Of($"me:{hash}\n", null, command 60. (shell "cat >/dev/null; exit 0"), 1)

              let verdict user (password: string) =
                  let answer =
                      authenticator.Check(LoginProof.Password(user, Encoding.UTF8.GetBytes password))

                  answer.Verdict, answer.Means

              Expect.equal (verdict "me" "secret") (AuthVerdict.Allowed, LoginMeans.PasswordFile) "right"
              Expect.equal (verdict "me" "wrong") (AuthVerdict.Refused, LoginMeans.PasswordFile) "wrong"
              Expect.equal (verdict "you" "any") (AuthVerdict.Allowed, LoginMeans.Command) "not in the file"
          }

          test "the bytes of a password are wiped when the program has answered" {
              let authenticator =
                  Authenticator.Of(null, null, command 60. (shell "cat >/dev/null"), 1)

              let secret = "secret"B
              use answered = new ManualResetEventSlim()
              let mutable found = AuthVerdict.Failed, false

              authenticator.CheckOnPool(
                  LoginProof.Password("me", secret),
                  Action<LoginAnswer>(fun answer ->
                      found <- answer.Verdict, Array.forall ((=) 0uy) secret
                      answered.Set())
              )

              Expect.isTrue (answered.Wait(TimeSpan.FromSeconds 20.)) "answered"
              Expect.equal found (AuthVerdict.Allowed, true) "verdict, and whether it is wiped"
          } ]

/// A restart of eighty clients whose passwords are slow to check: no pest but as bad as one, and longer than a test may be.
module Lightway.Bench.Restart

open System
open Lightway.Bench.Matrix
open Lightway.Lab
open Lightway.Lab.Pests
open Lightway.Server.Auth

let private clients = 80
let private hashers = 1

/// A hash that takes about a second of CPU, and what it takes.
let private slowHash (password: string) : struct (string * float) =
    let hash rounds =
        let before = Environment.CpuUsage.UserTime

        match
            LibCrypt.Hash(
                System.ReadOnlySpan(System.Text.Encoding.UTF8.GetBytes password),
                $"$6$rounds={rounds}$saltsaltsaltsalt$"
            )
        with
        | null -> raise (LabException "libcrypt has no SHA-512")
        | hash -> struct (hash, (Environment.CpuUsage.UserTime - before).TotalSeconds)

    let trial = 100_000
    let struct (_, seconds) = hash trial
    hash (int (float trial / seconds))

/// 80 clients of different networks and users log in at once, and a check takes a second. Each waits as long as a client does
/// (30 s), and then starts again.
let run () : Verdict =
    let struct (hash, alone) = slowHash "right"

    use site =
        new Site(
            { Expresslane = true
              Offload = true
              ServerKeys = [ "login_checks", string hashers ]
              ClientKeys = [] }
        )

    let users = [ for number in 1..clients -> $"user{number}" ]
    site.SetUsers users hash
    site.Vpn.StartServer()

    let struct (arrivals, checks) =
        site.Rush "right" users TimeSpan.MaxValue (TimeSpan.FromSeconds(5.0 * float clients))

    let bound = float clients * checks.Each / float hashers + 10.0

    let cpu, waiting =
        checks.Ran / float checks.Count, checks.Waited / float checks.Count

    printfn
        $"  restart: {checks.Count} checks, {arrivals.Starts} starts; a check takes {alone:F2} s alone, here {cpu:F2} s of CPU and {waiting:F2} s of waiting for a core"

    { Text =
        $"restart: {arrivals.Online} of {clients} clients are online after {arrivals.Seconds:F1} s, with {hashers} hashing thread and {checks.Each:F2} s per check; within {clients} checks and 10 s: {bound:F1} s"
      Holds = Some(arrivals.Online = clients && arrivals.Seconds <= bound) }

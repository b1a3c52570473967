/// Parsers of single values: durations, sizes, networks, addresses and numbers.
module Lightway.Tests.OptionValuesTests

open System
open System.Net
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Options

let tests: Test =
    // In ticks, as decimal numbers: sums of binary fractions would be rounded.
    let units =
        [ "ns", 0.01m
          "us", 10m
          "ms", 1e4m
          "s", 1e7m
          "m", 6e8m
          "h", 3.6e10m
          "d", 8.64e11m
          "w", 6.048e12m ]

    testList
        "Values"
        [ testProperty "a duration is the sum of its parts, with or without spaces"
          <| fun (parts: NonEmptyArray<NonNegativeInt * NonNegativeInt>) (spaced: bool) ->
              let parts =
                  [ for count, unit in parts.Get -> count.Get, units[unit.Get % units.Length] ]

              let separator = if spaced then " " else ""

              let text =
                  String.concat separator [ for count, (name, _) in parts -> $"{count}{separator}{name}" ]

              let ticks = List.sumBy (fun (count, (_, ticks)) -> decimal count * ticks) parts

              match Value.duration.Parse text with
              | Ok value -> decimal value.Ticks = Decimal.Truncate ticks
              | Error _ -> false

          for text in [ ""; "5"; "1.5s"; "s"; "-1s"; "1 parsec"; "1s,"; "99999999999999999999s"; "200000w"; "1e3s" ] do
              test $"\"{text}\" is not a duration" { Expect.isError (Value.duration.Parse text) "" }

          for text, seconds in [ "2 hours", 7200; "1min", 60; "1day 1sec", 86401; "0", 0 ] do
              test $"\"{text}\" is {seconds} seconds" {
                  Expect.equal (Value.duration.Parse text) (Ok(TimeSpan.FromSeconds(int64 seconds))) ""
              }

          for text, bytes in
              [ "1500", 1500
                "15 MiB", 15_728_640
                "8MB", 8_000_000
                "1.5k", 1500
                "64kib", 65536
                "1 B", 1
                "2147483647", Int32.MaxValue ] do
              test $"\"{text}\" is {bytes} bytes" { Expect.equal (Value.byteSize.Parse text) (Ok bytes) "" }

          for text in [ ""; "0"; "2 GiB"; "1 MiBs"; "-1"; "1 M B"; "1.2.3" ] do
              test $"\"{text}\" is not a size" { Expect.isError (Value.byteSize.Parse text) "" }

          testProperty "a network contains the address that it was written with"
          <| fun (a: byte) (b: byte) (c: byte) (d: byte) ->
              let address = IPAddress [| a; b; c; d |]
              let length = 8 + int d % 23

              match (Value.ipv4Network 8 30).Parse $"{address}/{length}" with
              | Ok network -> network.PrefixLength = length && network.Contains address
              | Error _ -> false

          for text, expected in
              [ "vpn.example.com:1", Some("vpn.example.com", 1)
                "192.0.2.1:65535", Some("192.0.2.1", 65535)
                "[2001:db8::1]:7", Some("2001:db8::1", 7)
                "2001:db8::1:7", None
                "host", None
                "host:0", None
                "host:65536", None
                ":7", None
                "[host]:7", None ] do
              test $"\"{text}\" as host:port" {
                  match Value.hostPort.Parse text, expected with
                  | Ok struct (host, port), Some wanted -> Expect.equal (host, port) wanted ""
                  | Error _, None -> ()
                  | result, _ -> failtestf "%A" result
              }

          test "a host name has at most 253 characters: the resolver raises beyond 255" {
              let name length =
                  String.replicate 4 (String('a', 59) + ".") + String('a', length - 240)

              let isAccepted (name: string) =
                  Result.isOk (Value.hostPort.Parse $"{name}:1")

              Expect.isTrue (isAccepted (name 253)) "253"
              Expect.isFalse (isAccepted (name 254)) "254"
          }

          test "numbers may be hexadecimal, and stay in their range" {
              Expect.equal ((Value.number 0L 0xFFFF_FFFFL).Parse "0xffffffff") (Ok 0xFFFF_FFFFL) ""
              Expect.isError ((Value.number 0L 0xFFFF_FFFFL).Parse "0x100000000") ""
              Expect.isError ((Value.number 0L 10L).Parse "-1") ""
          } ]

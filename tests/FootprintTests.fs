/// What programs hold in memory: which pages they give back after their start.
module Lightway.Tests.FootprintTests

open System.IO
open Expecto
open Lightway.Hosting.Start
open Lightway.Options

/// A mapping's lines in /proc/PID/smaps.
let private mapping (head: string) (anonymous: int) =
    $"{head}\nSize:                 64 kB\nRss:                  40 kB\nAnonymous:        {anonymous, 8} kB\nAnonHugePages:         0 kB\nVmFlags: rd ex mr mw me\n"

let private code =
    mapping "7f0000001000-7f0000011000 r-xp 00001000 08:01 42    /usr/lib/lib with spaces.so" 0

let tests =
    testList
        "Footprint"
        [ test "pages of code and constants may be dropped, wherever they are in the list" {
              let constants = mapping "55550000-55551000 r--p 00000000 08:01 7    /opt/lightway" 0
              let bundle = mapping "55560000-55562000 r--s 00000000 08:01 7    /opt/lightway" 0

              Expect.equal
                  (MappedPages.droppable (constants + bundle + code))
                  [| struct (0x55550000un, 0x1000un)
                     struct (0x55560000un, 0x2000un)
                     struct (0x7f0000001000un, 0x10000un) |]
                  ""
          }

          testList
              "nothing else is dropped:"
              [ for name, lines in
                    [ "pages that the loader has written to",
                      mapping "7f00-7f10 r--p 00000000 08:01 7    /lib/libc.so.6" 4
                      "data", mapping "7f00-7f10 rw-p 00000000 08:01 7    /lib/libc.so.6" 0
                      "code that can be written", mapping "7f00-7f10 rwxp 00000000 08:01 7    /lib/libc.so.6" 0
                      "memory that has a name", mapping "7f00-7f10 r-xs 00000000 00:01 7    /memfd:code (deleted)" 0
                      "a driver's", mapping "7f00-7f10 r--s 00000000 00:05 7    /dev/net/tun" 0
                      "memory without a file", mapping "7f00-7f10 r--p 00000000 00:00 0 " 0
                      "the kernel's", mapping "7f00-7f10 r-xp 00000000 00:00 0                 [vdso]" 0
                      "no access", mapping "7f00-7f10 ---p 00000000 08:01 7    /lib/libc.so.6" 0
                      "bounds in the wrong order", mapping "7f10-7f00 r--p 00000000 08:01 7    /lib/libc.so.6" 0
                      "an empty text", "" ] ->
                    test name {
                        Expect.equal (MappedPages.droppable lines) [||] ""

                        Expect.equal (MappedPages.droppable (code + lines)).Length 1 "after one that is"
                    } ]

          test "this process has such pages, its C library's among them, and mappings that stay" {
              let smaps = File.ReadAllText "/proc/self/smaps"
              let found = MappedPages.droppable smaps

              let library =
                  [ for line in smaps.Split '\n' do
                        if line.Contains " r-xp " && line.Contains "/libc.so" then
                            System.Convert.ToUInt64(line.Split('-')[0], 16) ]

              Expect.isNonEmpty library ""

              for address in library do
                  Expect.contains [ for struct (first, _) in found -> uint64 first ] address ""

              Expect.isLessThan found.Length (smaps.Split("VmFlags:").Length - 1) ""
          }

          test "a program that gives back what its start needed has fewer pages of files, and runs on" {
              let pages () =
                  let line =
                      File.ReadLines "/proc/self/status" |> Seq.find (fun line -> line.StartsWith "RssFile:")

                  int (line.Split([| ' '; '\t' |], System.StringSplitOptions.RemoveEmptyEntries)[1])

              let before = pages ()
              Footprint.Settle()
              let after = pages ()
              Expect.isLessThan after (before * 3 / 4) $"of {before} kB"
          } ]

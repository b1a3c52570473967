/// Which kernels are warned about, against a list of releases written out by hand.
module Lightway.Specs.KnownKernelsTable

open Expecto
open FsCheck
open Lightway.Segmenter

let private everything =
    [ OffloadPart.TunTcp; OffloadPart.TunUdp; OffloadPart.UdpSegments ]

let private gso, private refused, private lost = "GSO_PARTIAL", "EINVAL", "vxlan"

/// Words of the warnings for a machine.
let private named inUse release text signature =
    let lines = KnownKernels.warnings inUse release text signature

    [ for word in [ gso; refused; lost ] do
          if lines |> List.exists _.Contains(word) then
              word ]

/// Release, version text, signature; what is said.
let private cases =
    let plain release said = release, "#1 SMP", "", said

    [ plain "7.1.0" []
      plain "7.1.4-arch1-1" []
      plain "7.0.14-2-pve" []
      plain "7.0.11" []
      plain "7.0.10" [ gso ]
      plain "7.0.2-6-pve" [ gso ]
      plain "7.0.0-rc1" [ gso ]
      plain "7.2.0" []
      plain "6.19.9" []
      plain "6.18.44-fc-v669" []
      plain "6.10.5" []
      plain "6.10.4" [ refused ]
      plain "6.10.3" [ refused ]
      plain "6.10.2" []
      plain "6.8.5" []
      plain "6.8.4-060804-generic" [ lost ]
      plain "6.7.0" [ lost ]
      plain "6.7.12" [ lost ]
      plain "6.6.46" []
      plain "6.6.45" [ refused ]
      plain "6.6.44" [ refused ]
      plain "6.6.43" []
      plain "6.6.26" []
      plain "6.6.25" [ lost ]
      plain "6.2.0" [ lost ]
      plain "6.2" [ lost ]
      plain "6.1.999" []
      plain "6.1.107" []
      plain "6.1.106" [ refused ]
      plain "6.1.103" [ refused ]
      plain "6.1.102" []
      plain "5.15.200" []
      plain "5.15.167" []
      plain "5.15.166" [ refused ]
      plain "5.15.165" [ refused ]
      plain "5.15.164" []
      plain "16.8.4" []
      plain "linux 6.8.4" []
      plain "" []
      // Distributions whose release leaves the patches out.
      "6.8.0-45-generic", "#45-Ubuntu SMP", "Ubuntu 6.8.0-45.45-generic 6.8.12\n", []
      "6.8.0-11-generic", "#11-Ubuntu SMP", "Ubuntu 6.8.0-11.11-generic 6.8.1\n", [ lost ]
      "6.1.0-28-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)", "", []
      "6.1.0-24-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.106-3 (2024-08-26)", "", [ refused ]
      // A text that contradicts the release is not believed.
      "6.8.4", "#1 SMP Debian 6.8.12-1", "", [ lost ]
      "6.8.0", "#1 SMP Debian 6.1.119-1", "", [ lost ] ]

let laws =
    testList
        "Known kernels"
        [ for release, text, signature, said in cases do
              test $"{release} {text} {signature.Trim()}: {said}" {
                  Expect.equal (named everything release text signature) said ""
              }

          test "a fault is named only if a part that it concerns is in use" {
              for release, concerned in
                  [ "7.0.1", [ OffloadPart.UdpSegments ]
                    "6.6.45", [ OffloadPart.TunTcp; OffloadPart.TunUdp ]
                    "6.8.4", [ OffloadPart.TunUdp ] ] do
                  for part in everything do
                      let isNamed = not (KnownKernels.warnings [ part ] release "" "").IsEmpty
                      Expect.equal isNamed (List.contains part concerned) $"{release}, {part}"

                  Expect.isEmpty (KnownKernels.warnings [] release "" "") "nothing is in use"
          }

          test "a warning has the release, the effect, the source and the remedy, in one line" {
              for fault in KnownKernels.table do
                  let (major, minor, patch), _ = List.head fault.Ranges
                  let release = $"{major}.{minor}.{patch}-my"
                  let line = KnownKernels.warnings fault.Parts release "" "" |> List.exactlyOne

                  for part in [ release; fault.Effect; fault.Source; fault.Remedy ] do
                      Expect.stringContains line part ""

                  Expect.isFalse (line.Contains '\n') "one line"
          }

          testProperty "any text has an answer" (fun (release: string) (text: string) (signature: string) ->
              let safe (text: string) = if isNull text then "" else text
              KnownKernels.warnings everything (safe release) (safe text) (safe signature) |> ignore)

          testProperty "numbers of any length have an answer" (fun (numbers: NonNegativeInt list) ->
              let digits =
                  numbers |> List.map (fun (NonNegativeInt n) -> string n) |> String.concat ""

              KnownKernels.warnings everything $"6.8.{digits}" "" "" |> ignore) ]

/// Stacks as `perf script` prints them, and where the benchmark counts them. The texts are made up.
module Lightway.Tests.ProfileTests

open Expecto
open Lightway.Bench.Matrix

let private kernel (symbol: string) =
    $"\tffffffff81e2cb8f {symbol} ([kernel.kallsyms])"

let private sample (frames: string list) =
    String.concat "\n" ("lightway-server " :: frames) + "\n\n"

let private entry =
    List.map kernel [ "do_syscall_64"; "entry_SYSCALL_64_after_hwframe" ]

/// Frames from the innermost out, then the system call's entry.
let private inCall (names: string list) = sample (List.map kernel names @ entry)

let private user (symbol: string) (file: string) =
    sample [ $"\t          8344e0 {symbol} ({file})" ]

let private map = "/tmp/perf-12.map"

let private cases =
    [ "a copy for a send",
      inCall [ "_copy_from_iter"; "ip_generic_getfrag"; "udp_sendmsg"; "__x64_sys_sendmmsg" ],
      ("sendmmsg", "copying")

      "a function without a part counts for its caller",
      inCall [ "_raw_spin_lock"; "__ip_append_data"; "udp_sendmsg"; "__x64_sys_sendmmsg" ],
      ("sendmmsg", "network")

      "memory", inCall [ "get_page_from_freelist"; "skb_page_frag_refill"; "__sys_sendmmsg" ], ("sendmmsg", "memory")
      "a checksum", inCall [ "csum_partial"; "tun_get_user"; "vfs_writev"; "do_writev" ], ("TUN write", "checksum")

      "what the other end of a veth pair receives, copies too, is softirq",
      inCall [ "_copy_to_iter"; "tcp_v4_rcv"; "handle_softirqs"; "veth_xmit"; "tun_get_user"; "do_writev" ],
      ("TUN write", "softirq")

      "veth_xmit puts no part of a send into scheduling",
      inCall [ "__napi_schedule"; "veth_xmit"; "__x64_sys_sendmmsg" ],
      ("sendmmsg", "network")

      "the TUN queue is read by read(2)", inCall [ "tun_do_read"; "vfs_read"; "ksys_read" ], ("TUN read", "network")
      "a receive", inCall [ "_copy_to_iter"; "udp_recvmsg"; "__arm64_sys_recvmmsg" ], ("recvmmsg", "copying")
      "waiting", inCall [ "schedule"; "do_epoll_wait"; "__x64_sys_epoll_wait" ], ("epoll_wait", "scheduling")
      "a call that has no stage", inCall [ "__x64_sys_getpid" ], ("other calls", "other")

      "on the way out of a call libc names it",
      sample (kernel "exit_to_user_mode_loop" :: entry @ [ "\t  10b106 __GI___writev (/usr/lib/libc.so.6)" ]),
      ("TUN write", "scheduling")

      "an interrupt of a call",
      inCall [ "tick_nohz_handler"; "asm_sysvec_apic_timer_interrupt"; "udp_sendmsg"; "__x64_sys_sendmmsg" ],
      ("sendmmsg", "interrupts")

      "an interrupt of user space",
      sample [ kernel "asm_sysvec_apic_timer_interrupt"; "\t  119310 seal (/opt/libwolfssl.so)" ],
      ("interrupts", "other")

      "the kernel without an entry", sample [ kernel "ret_from_fork_asm" ], ("unknown", "other")

      "the cipher's loop", user "L_AES_GCM_encrypt_avx2_ghash_128" "/opt/libwolfssl.so.45", ("AES-GCM", "128-byte loop")
      "the cipher besides", user "wc_AesGcmEncrypt" "/opt/libwolfssl.so.45", ("AES-GCM", "per packet")
      "Intel's library", user "aes_gcm_enc_256_vaes_avx512" "/usr/lib/libIPSec_MB.so.1.3.0", ("AES-GCM", "IPsec-MB")

      "a method counts for its type",
      user
          "valuetype [System.Runtime]System.Span`1<uint8> [Lightway.Tunnel] Lightway.Tunnel.Udp.Batch::Send(int32, class (x))[Tier1]"
          map,
      ("managed", "Batch")

      "a method of .NET",
      user "bool [System.Private.CoreLib] System.Queue`1[System.__Canon]::TryTake(!0&)[Tier1]" map,
      ("managed", ".NET libraries")

      "a native call's stub",
      user "int32 [Lightway.Tunnel] dynamicClass::IL_STUB_PInvoke(int32)" map,
      ("managed", "P/Invoke")
      "code without a map", user "[unknown]" "/memfd:doublemapper (deleted)", ("managed", "no name")
      "the runtime", user "[unknown]" "/usr/share/dotnet/libcoreclr.so", ("runtime, libc", "libcoreclr")
      "what has no file", user "[unknown]" "[unknown]", ("unknown", "[unknown]")
      "a sample without a stack", sample [], ("unknown", "no stack") ]

let tests =
    testList
        "Profile"
        [ for name, text, expected in cases do
              testCase name (fun () ->
                  Expect.equal (Profile.parse text |> List.map Profile.classify) [ expected ] "stage, part")

          testCase "every sample counts once, stages in their order, large parts first" (fun () ->
              let twice = inCall [ "udp_sendmsg"; "__x64_sys_sendmmsg" ]

              let text =
                  String.concat "" (twice :: twice :: List.map (fun (_, text, _) -> text) cases)

              let shares = Profile.sum (Profile.parse text)
              Expect.equal (Profile.samples shares) (cases.Length + 2) "samples"
              Expect.equal (List.distinct (List.map _.Stage shares)) Profile.stages "every stage has a case"
              let sending = shares |> List.filter (fun share -> share.Stage = "sendmmsg")
              Expect.equal (sending.Head.Part, sending.Head.Samples) ("network", 4) "the largest part") ]

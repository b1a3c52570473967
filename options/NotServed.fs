namespace Lightway.Options

/// An option that is only accepted, so that files written for other builds work here: its value is checked, a warning
/// says that it has no effect, and no program reads it.
[<NoComparison; NoEquality>]
type internal NotServed =
    {
        Key: string
        /// Follows the key in the warning.
        Reason: string
        /// Refuses the values that a build with this option refuses. Does nothing if no layer sets the key.
        Check: Reader -> unit
    }

[<RequireQualifiedAccess>]
module internal NotServed =
    let private yetToCome = "not served yet by this build; it has no effect"

    let private yet (key: string) (parse: Parser<'T>) : NotServed =
        { Key = key
          Reason = yetToCome
          Check = (fun reader -> reader.Check(key, parse)) }

    /// An option that accepts any value.
    let private unchecked (key: string) (reason: string) : NotServed =
        { Key = key
          Reason = reason
          Check = ignore }

    let private ioUring =
        [ yet "enable_tun_iouring" Value.boolean
          yet "iouring_entry_count" (Value.int32 1 32768)
          yet "iouring_sqpoll_idle_time" Value.duration ]

    /// The server's table, in the order of the warnings.
    let server: NotServed list =
        [ yet "enable_batch_receive" Value.boolean
          yet "enable_batch_send" Value.boolean
          yield! ioUring
          yet "tls_debug" Value.boolean
          unchecked "bind_attempts" yetToCome ]

    /// The client's table, in the order of the warnings.
    let client: NotServed list =
        [ yet "preferred_connection_wait_interval" Value.duration
          yet "enable_batch_receive" Value.boolean
          yield! ioUring
          yet "enable_inside_pkt_encoding" Value.boolean
          yet "tracer_packet_timeout" Value.positiveDuration
          yet "keylog" Value.text
          yet "tls_debug" Value.boolean
          unchecked "enable_pqc" "has no effect here; keyshare chooses among post-quantum groups"
          for key in [ "wintun_file"; "device_guid"; "wintun_ring_capacity"; "enable_dpapi" ] do
              unchecked key "is for Windows; it has no effect here"
          unchecked "enable_connected_udp" "is for Apple systems; it has no effect here" ]

    /// Warns about each option of `table` that a layer sets.
    let warn (table: NotServed list) (reader: Reader) : unit =
        for entry in table do
            match reader.TryFind entry.Key with
            | Some setting -> reader.Warn $"{entry.Key}: {entry.Reason} ({setting.Source.Describe()})"
            | None -> ()

    /// Refuses wrong values of the options of `table`.
    let check (table: NotServed list) (reader: Reader) : unit =
        for entry in table do
            entry.Check reader

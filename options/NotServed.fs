namespace Lightway.Options

/// An option that is only accepted, so that files written for other builds work here: its value is checked, a warning
/// says that it has no effect, and no program reads it.
[<NoComparison; NoEquality>]
type internal NotServed =
    {
        Key: string
        /// Follows the key in the warning.
        Reason: string
        /// Reads the option: refuses the values that a build with this option refuses.
        Read: Reader -> unit
    }

[<RequireQualifiedAccess>]
module internal NotServed =
    /// An option that accepts any value.
    let private unchecked (key: string) (reason: string) : NotServed =
        { Key = key
          Reason = reason
          Read =
            fun reader ->
                let value =
                    match reader.TryFind key with
                    | Some setting -> setting.Node
                    | None -> Node.Absent

                reader.Note(key, Shape.Any, Node.Absent, value) }

    /// The server's table, in the order of the warnings.
    let server: NotServed list = []

    /// The client's table, in the order of the warnings.
    let client: NotServed list =
        [ unchecked "enable_pqc" "has no effect here; keyshare chooses among post-quantum groups"
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
            entry.Read reader

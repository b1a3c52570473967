namespace Lightway.Options

open System
open System.Globalization

/// The pages of files that a process can do without: code and constants of programs and libraries, which the kernel reads again
/// from the file when they are needed.
[<RequireQualifiedAccess>]
module MappedPages =
    /// The bounds of "7f00-7f08 r-xp 00001000 08:01 42    /usr/lib/libc.so.6", a mapping's first line in proc_pid_smaps(5):
    /// only of one that can't be written and is a file's. What lives in memory only (memfd_create(2)) or in a driver would
    /// not become free.
    let private bounds (line: string) : struct (unativeint * unativeint) voption =
        let words = line.Split(' ', 6, StringSplitOptions.RemoveEmptyEntries)

        if
            words.Length = 6
            && words[1].StartsWith "r-"
            && words[5].StartsWith '/'
            && not (words[5].StartsWith "/memfd:" || words[5].StartsWith "/dev/")
        then
            match words[0].Split '-' with
            | [| first; last |] ->
                match
                    UInt64.TryParse(first, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture),
                    UInt64.TryParse(last, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture)
                with
                | (true, first), (true, last) when first < last ->
                    ValueSome(struct (unativeint first, unativeint (last - first)))
                | _ -> ValueNone
            | _ -> ValueNone
        else
            ValueNone

    /// A mapping's first line begins with an address, the lines about it with a name and a colon.
    let private isHead (line: string) =
        line.Length > 0 && Char.IsAsciiHexDigitLower line[0]

    /// Kilobytes of "Anonymous:             0 kB".
    let private hasNone (name: string) (line: string) =
        line.StartsWith(name, StringComparison.Ordinal)
        && line.AsSpan(name.Length).Trim().SequenceEqual "0 kB"

    /// Address and length in bytes of all mappings in the text of /proc/PID/smaps whose pages may be dropped without loss: none
    /// of them has been written to ("Anonymous" is 0), for instance by the loader, before it took the right to write away.
    let droppable (smaps: string) : struct (unativeint * unativeint)[] =
        let found = ResizeArray()
        let mutable current = ValueNone

        for line in smaps.Split '\n' do
            if isHead line then
                current <- bounds line
            elif hasNone "Anonymous:" line then
                current |> ValueOption.iter found.Add

        found.ToArray()

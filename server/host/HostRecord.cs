using Lightway.Hosting;
using Lightway.Options;
using Microsoft.FSharp.Collections;

namespace Lightway.Server.Host;

/// <summary>
/// What set-ups have changed, in a file per device and network namespace. It lies in /run: a reboot takes back what was
/// changed, and the file with it. Only root may touch it, as it says what <c>--undo</c> does.
/// </summary>
internal sealed class HostRecord
{
    private const string Folder = "/run/lightway-host";
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private readonly string _suffix;
    private readonly string _file;

    public HostRecord(string device)
    {
        var space = new FileInfo("/proc/self/ns/net").LinkTarget ?? ""; // net:[4026531840]
        _suffix = "." + string.Concat(space.Where(char.IsAsciiDigit));
        _file = Path.Combine(Folder, device + _suffix);
    }

    /// <exception cref="ConfigurationException">Somebody else may change the file.</exception>
    public FSharpList<HostChange> Read() => Read(_file);

    /// <summary>Replaces the file; an empty record removes it.</summary>
    public void Write(FSharpList<HostChange> record) => Write(_file, record);

    /// <summary>
    /// What concerns the whole host stays as it is while another server of this namespace has been set up, and is taken back
    /// with that one. Returns what is left to be taken back now.
    /// </summary>
    public FSharpList<HostChange> HandOver(FSharpList<HostChange> record)
    {
        var shared = ListModule.OfSeq(record.Where(HostPlan.isShared));
        var other = Directory.Exists(Folder)
            ? Directory.GetFiles(Folder, "*" + _suffix).FirstOrDefault(file => file != _file)
            : null;
        if (other is null || shared.IsEmpty)
        {
            return record;
        }
        Write(other, HostPlan.handOver(shared, Read(other)));
        return ListModule.OfSeq(record.Where(change => !HostPlan.isShared(change)));
    }

    private static FSharpList<HostChange> Read(string file)
    {
        if (!File.Exists(file))
        {
            return FSharpList<HostChange>.Empty;
        }
        FileChecks.Require("setup-host", file, FileRule.OwnerOnly);
        return HostPlan.read(File.ReadAllText(file));
    }

    private static void Write(string file, FSharpList<HostChange> record)
    {
        if (record.IsEmpty)
        {
            File.Delete(file);
            if (Directory.Exists(Folder) && !Directory.EnumerateFileSystemEntries(Folder).Any())
            {
                Directory.Delete(Folder);
            }
            return;
        }
        Directory.CreateDirectory(Folder, OwnerOnly | UnixFileMode.UserExecute);
        var temporary = file + ".new";
        File.Delete(temporary);
        var options = new FileStreamOptions
        {
            Mode = FileMode.CreateNew,
            Access = FileAccess.Write,
            UnixCreateMode = OwnerOnly,
        };
        using (var writer = new StreamWriter(temporary, options))
        {
            writer.Write(HostPlan.write(record));
        }
        File.Move(temporary, file, overwrite: true);
    }
}

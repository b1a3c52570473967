using System.ComponentModel;
using System.Net;
using Lightway.Options;
using Microsoft.Extensions.Logging;
using LogLevel = Microsoft.Extensions.Logging.LogLevel;

namespace Lightway.Client.Resolver;

/// <summary>
/// /etc/resolv.conf for the time of the tunnel. The original, file or symbolic link, keeps its attributes under another name, which
/// the file that takes its place tells: so it comes back after a crash, too. A file that somebody else has put there since stays.
/// </summary>
internal sealed partial class ResolvConf : IDisposable
{
    public const string FilePath = "/etc/resolv.conf";
    private const string Backup = FilePath + ".lightway-orig";
    private const string Fresh = FilePath + ".lightway-new";
    private const int Backups = 9;
    private const int Repairs = 10; // then somebody else wants it more
    private const int SettleMs = 200;
    private readonly IPAddress _dns;
    private readonly ILogger _log;
    private readonly FileSystemWatcher _watcher = new("/etc", "resolv.conf*");
    private readonly Lock _changing = new();
    private readonly Timer _settled;
    private string _original;
    private int _repairs;
    private bool _isDisposed;

    /// <exception cref="IOException">The file can't be replaced, or is another client's that lives.</exception>
    public ResolvConf(IPAddress dns, ILogger log)
    {
        _dns = dns;
        _log = log;
        _original = Take(dns);
        _settled = new Timer(_ => Repair());
        // Other programs replace the file, by renaming as a rule.
        _watcher.Changed += (_, _) => _settled.Change(SettleMs, Timeout.Infinite);
        _watcher.Created += (_, _) => _settled.Change(SettleMs, Timeout.Infinite);
        _watcher.Deleted += (_, _) => _settled.Change(SettleMs, Timeout.Infinite);
        _watcher.Renamed += (_, _) => _settled.Change(SettleMs, Timeout.Infinite);
        try
        {
            _watcher.EnableRaisingEvents = true;
        }
        catch (IOException error)
        {
            LogFailure(_log, error.Message); // inotify(7) is not available: changes to the file go unnoticed
        }
    }

    /// <summary>Its content; "" if there is none.</summary>
    public static string Text
    {
        get
        {
            try
            {
                return File.ReadAllText(FilePath);
            }
            catch (Exception error) when (error is IOException or UnauthorizedAccessException)
            {
                return "";
            }
        }
    }

    /// <summary>Puts back what a killed client has replaced. True: there was something.</summary>
    /// <exception cref="IOException">It can't be put back.</exception>
    public static bool RestoreLeftover()
    {
        var (processId, original) = DnsPlan.maker(Text);
        var isBackup = original == DnsPlan.Nothing || original.StartsWith(Backup, StringComparison.Ordinal);
        if (processId == 0 || !isBackup || IsAlive(processId))
        {
            return false;
        }
        PutBack(original);
        return true;
    }

    public void Dispose()
    {
        lock (_changing)
        {
            _isDisposed = true;
        }
        _watcher.Dispose();
        _settled.Dispose();
        try
        {
            if (IsOurs)
            {
                PutBack(_original);
            }
            else
            {
                Forget(_original); // what stands there now is younger
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            LogFailure(_log, error.Message);
        }
    }

    private bool IsOurs =>
        DnsPlan.maker(Text) is var (processId, original) && processId == Environment.ProcessId && original == _original;

    /// <summary>Somebody else has replaced the file: theirs is the original from now on. On a thread of the timer.</summary>
    private void Repair()
    {
        lock (_changing)
        {
            if (_isDisposed || IsOurs)
            {
                return;
            }
            try
            {
                if (++_repairs > Repairs)
                {
                    LogGivenUp(_log);
                    _watcher.EnableRaisingEvents = false;
                    return;
                }
                Forget(_original);
                _original = Take(_dns);
                LogRepaired(_log);
            }
            catch (Exception error) when (error is IOException or UnauthorizedAccessException)
            {
                LogFailure(_log, error.Message);
            }
        }
    }

    /// <summary>Another client's process: this one may have the number of a killed one, in a container for example.</summary>
    private static bool IsAlive(int processId)
    {
        if (processId == Environment.ProcessId)
        {
            return false;
        }
        try
        {
            return File.ReadAllText($"/proc/{processId}/comm").Trim() == "lightway-client"; // 15 bytes, no more are told
        }
        catch (IOException)
        {
            return false;
        }
    }

    /// <summary>Replaces the file. Returns where the original is.</summary>
    private static string Take(IPAddress dns)
    {
        var (processId, _) = DnsPlan.maker(Text);
        if (processId != 0)
        {
            throw new IOException(
                $"another lightway-client (process {processId}) has replaced {FilePath}: stop it, or set dns_config_mode: noexec for this one"
            );
        }
        try
        {
            var original = Keep();
            try
            {
                Put(DnsPlan.file(dns, Environment.ProcessId, original));
            }
            catch
            {
                Forget(original);
                throw;
            }
            return original;
        }
        catch (UnauthorizedAccessException error)
        {
            throw Refused(Files.EACCES, error.Message);
        }
    }

    /// <summary>Gives the original a second name.</summary>
    private static string Keep()
    {
        for (var number = 1; number <= Backups; number++)
        {
            var name = number == 1 ? Backup : $"{Backup}.{number}";
            switch (Files.Link(FilePath, name))
            {
                case 0:
                    return name;
                case Files.ENOENT:
                    return DnsPlan.Nothing;
                case Files.EEXIST:
                    break; // of another client, or from before: it is not ours to remove
                case Files.EROFS:
                    throw Refused(Files.EROFS);
                default: // a file that is a mount of its own, as in containers, or a file system without hard links
                    if (!File.Exists(name))
                    {
                        Copy(name);
                        return name;
                    }
                    break;
            }
        }
        throw new IOException(
            $"dns_config_mode: {Backup} and others are there, left behind by clients that were killed: compare them with {FilePath}, and remove them"
        );
    }

    private static void Copy(string name)
    {
        if (new FileInfo(FilePath).LinkTarget is { } target)
        {
            _ = File.CreateSymbolicLink(name, target);
            return;
        }
        File.Copy(FilePath, name); // with its mode
        using var copy = File.OpenHandle(name, FileMode.Open, FileAccess.ReadWrite);
        RandomAccess.FlushToDisk(copy);
    }

    private static void Put(string text)
    {
        File.Delete(Fresh);
        File.WriteAllText(Fresh, text);
        File.SetUnixFileMode(
            Fresh,
            UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead
        );
        var errno = Files.Rename(Fresh, FilePath);
        if (errno == 0)
        {
            return;
        }
        File.Delete(Fresh);
        if (errno != Files.EBUSY)
        {
            throw Refused(errno);
        }
        Overwrite(text); // a mount of its own can't be replaced, but written to
    }

    private static void Overwrite(string text)
    {
        using var file = new FileStream(FilePath, FileMode.Open, FileAccess.Write);
        file.Write(System.Text.Encoding.UTF8.GetBytes(text));
        file.SetLength(file.Position);
    }

    private static void Forget(string original)
    {
        if (original != DnsPlan.Nothing)
        {
            File.Delete(original);
        }
    }

    private static void PutBack(string original)
    {
        if (original == DnsPlan.Nothing)
        {
            File.Delete(FilePath);
            return;
        }
        var errno = Files.Rename(original, FilePath);
        if (errno == Files.EBUSY)
        {
            Overwrite(File.ReadAllText(original));
            File.Delete(original);
        }
        else if (errno != 0)
        {
            throw new IOException(
                $"{FilePath} is that of a client that has ended, and the original {original} can't be put back: {Describe(errno)}"
            );
        }
    }

    private static string Describe(int errno) => $"{new Win32Exception(errno).Message} (errno {errno})";

    private static IOException Refused(int errno, string? detail = null)
    {
        var cause = errno switch
        {
            Files.EROFS => "its file system is read-only",
            Files.EPERM when Environment.IsPrivilegedProcess =>
                $"the system forbids it; if lsattr {FilePath} shows i, it is immutable: chattr -i {FilePath}",
            Files.EPERM or Files.EACCES => detail ?? "it needs root",
            _ => Describe(errno),
        };
        return new IOException(
            $"dns_config_mode: can't replace {FilePath}: {cause}; or set dns_config_mode: noexec, and names are not asked for through the tunnel"
        );
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = FilePath
            + " was replaced by another program; it is the tunnel's again, and theirs comes back at the end"
    )]
    private static partial void LogRepaired(ILogger log);

    [LoggerMessage(
        Level = LogLevel.Error,
        Message = FilePath
            + " is replaced again and again by another program, and stays as it is: names may be asked for outside the tunnel"
    )]
    private static partial void LogGivenUp(ILogger log);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Why}")]
    private static partial void LogFailure(ILogger log, string why);
}

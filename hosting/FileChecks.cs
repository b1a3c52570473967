namespace Lightway.Hosting;

/// <summary>Who else may touch a file that a program trusts.</summary>
public enum FileRule
{
    /// <summary>Others may read it; only its owner may write it.</summary>
    ReadableByOthers,

    /// <summary>
    /// Only its owner may read or write it; the group of a service that is not root may read a file of root's.
    /// </summary>
    OwnerOnly,
}

/// <summary>
/// Refuses to start on files that other users of the machine could read or change. The file, each directory on the way
/// to it and each symbolic link must belong to root or to the user of this process, and nobody else may write to the
/// directories, unless they are sticky as /tmp is.
/// </summary>
public static class FileChecks
{
    /// <summary>Set to 1 in the environment, it turns all checks off.</summary>
    public const string DisableVariable = "LW_DANGEROUSLY_DISABLE_PERMISSIONS_CHECKS";

    /// <summary>Where systemd puts the files of LoadCredential= (systemd.exec(5)).</summary>
    private const string CredentialsVariable = "CREDENTIALS_DIRECTORY";

    private const int MaxLinks = 40; // MAXSYMLINKS of linux/namei.h

    private const UnixFileMode OthersWrite = UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;
    private const UnixFileMode OthersAccess =
        OthersWrite
        | UnixFileMode.GroupRead
        | UnixFileMode.GroupExecute
        | UnixFileMode.OtherRead
        | UnixFileMode.OtherExecute;

    /// <summary>Checks one file and the way to it.</summary>
    /// <param name="key">Name of the option, for the message.</param>
    /// <exception cref="ConfigurationException">The file is missing or open to others.</exception>
    public static void Require(string key, string path, FileRule rule)
    {
        if (Environment.GetEnvironmentVariable(DisableVariable) == "1")
        {
            return;
        }
        var problem = Problem(path, rule, Environment.GetEnvironmentVariable(CredentialsVariable));
        if (problem is not null)
        {
            throw new ConfigurationException($"{key}: {problem}");
        }
    }

    /// <summary>What is wrong with the file, and the command that mends it; null when nothing is.</summary>
    /// <param name="credentials">
    /// Directory of systemd's credentials. It gives a service's user access by an entry in the access control list, which
    /// shows in the mode as a group that may read: 0440.
    /// </param>
    public static string? Problem(string path, FileRule rule, string? credentials = null)
    {
        try
        {
            var current = "/";
            var links = 0;
            var steps = new Stack<string>();
            Push(steps, Path.GetFullPath(path));
            var status = FileStatus.Of(current);
            while (true)
            {
                if (status is not { } known || (steps.Count == 0 && known.IsDirectory))
                {
                    return $"\"{path}\" does not exist or is not a file";
                }
                if (OwnerProblem(current, known) is { } owner)
                {
                    return owner;
                }
                if (known.IsLink)
                {
                    if (++links > MaxLinks)
                    {
                        return $"\"{path}\": too many symbolic links";
                    }
                    var target = new FileInfo(current).LinkTarget!;
                    Push(steps, target);
                    current = target.StartsWith('/') ? "/" : Path.GetDirectoryName(current)!;
                }
                else if (!known.IsDirectory)
                {
                    return steps.Count > 0
                        ? $"\"{path}\" does not exist or is not a file"
                        : FileProblem(current, known, rule, IsIn(credentials, current));
                }
                else if (DirectoryProblem(current, known.Permissions) is { } directory)
                {
                    return directory;
                }
                current = Next(current, steps);
                status = FileStatus.Of(current);
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return $"\"{path}\" cannot be checked: {error.Message}";
        }
    }

    /// <summary>A mode as chmod(1) takes it, four digits.</summary>
    public static string Octal(UnixFileMode mode) => Convert.ToString((int)mode, 8).PadLeft(4, '0');

    /// <summary>Puts the names of a path on top of those that are still to be walked.</summary>
    private static void Push(Stack<string> steps, string path)
    {
        foreach (var name in path.Split('/', StringSplitOptions.RemoveEmptyEntries).Reverse())
        {
            steps.Push(name);
        }
    }

    private static string Next(string current, Stack<string> steps) =>
        steps.TryPop(out var name)
            ? name switch
            {
                "." => current,
                ".." => Path.GetDirectoryName(current) ?? "/",
                _ => Path.Combine(current, name),
            }
            : current;

    private static string? OwnerProblem(string path, FileStatus status)
    {
        var self = FileStatus.Self;
        return status.Owner == 0 || status.Owner == self
            ? null
            : $"\"{path}\" belongs to user {status.Owner}, who may change it; run: chown -h {(self == 0 ? "root" : self)} {path}";
    }

    /// <summary>
    /// A file of root's may be readable by the group that this process runs as: then a service reads its key and cannot
    /// change it, and `chmod 640` is as good as a copy of the service's own.
    /// </summary>
    private static string? FileProblem(string file, FileStatus status, FileRule rule, bool isCredential)
    {
        var mode = status.Permissions;
        var isLent = status.Owner == 0 && FileStatus.Self != 0;
        var lend = $"run: chgrp {FileStatus.SelfGroup} {file} && chmod 640 {file}";
        var allowed =
            isCredential || (isLent && status.Group == FileStatus.SelfGroup)
                ? UnixFileMode.GroupRead
                : UnixFileMode.None;
        if (rule == FileRule.OwnerOnly && (mode & OthersAccess & ~allowed) != 0)
        {
            return isLent
                ? $"\"{file}\" has mode {Octal(mode)}, but only root and the group of this process may read it; {lend}"
                : $"\"{file}\" has mode {Octal(mode)}, but only its owner may access it; run: chmod 600 {file}";
        }
        if ((mode & OthersWrite) != 0)
        {
            return $"\"{file}\" has mode {Octal(mode)}, but only its owner may write it; run: chmod go-w {file}";
        }
        return isLent && FileStatus.IsClosed(file)
            ? $"\"{file}\" belongs to root, and this process may not read it; {lend}"
            : null;
    }

    private static string? DirectoryProblem(string directory, UnixFileMode mode)
    {
        var open = mode & OthersWrite;
        if (open == 0 || mode.HasFlag(UnixFileMode.StickyBit))
        {
            return null;
        }
        var (who, letters) = open switch
        {
            UnixFileMode.GroupWrite => ("its group", "g"),
            UnixFileMode.OtherWrite => ("everyone", "o"),
            _ => ("everyone", "go"),
        };
        return $"directory \"{directory}\" has mode {Octal(mode)}, so {who} may replace the file; run: chmod {letters}-w {directory}";
    }

    private static bool IsIn(string? directory, string file) =>
        !string.IsNullOrEmpty(directory)
        && file.StartsWith(Path.TrimEndingDirectorySeparator(directory) + "/", StringComparison.Ordinal);
}

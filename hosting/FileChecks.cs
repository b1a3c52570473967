namespace Lightway.Hosting;

/// <summary>Who else may touch a file that a program trusts.</summary>
public enum FileRule
{
    /// <summary>Others may read it; only its owner may write it.</summary>
    ReadableByOthers,

    /// <summary>Only its owner may read or write it.</summary>
    OwnerOnly,
}

/// <summary>
/// Refuses to start on files that other users of the machine could read or change. Directories above a file must not be
/// writable by everyone, unless they are sticky as /tmp is.
/// </summary>
public static class FileChecks
{
    /// <summary>Set to 1 in the environment, it turns all checks off.</summary>
    public const string DisableVariable = "LW_DANGEROUSLY_DISABLE_PERMISSIONS_CHECKS";

    private const UnixFileMode OthersWrite = UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;
    private const UnixFileMode OthersAccess =
        OthersWrite
        | UnixFileMode.GroupRead
        | UnixFileMode.GroupExecute
        | UnixFileMode.OtherRead
        | UnixFileMode.OtherExecute;

    /// <summary>Checks one file and the directories above it. Symbolic links are followed first.</summary>
    /// <param name="key">Name of the option, for the message.</param>
    /// <exception cref="ConfigurationException">The file is missing or open to others.</exception>
    public static void Require(string key, string path, FileRule rule)
    {
        if (Environment.GetEnvironmentVariable(DisableVariable) == "1")
        {
            return;
        }
        var problem = Problem(path, rule);
        if (problem is not null)
        {
            throw new ConfigurationException($"{key}: {problem}");
        }
    }

    /// <summary>What is wrong with the file, and the command that mends it; null when nothing is.</summary>
    public static string? Problem(string path, FileRule rule)
    {
        try
        {
            var full = Path.GetFullPath(path);
            if (!File.Exists(full))
            {
                return $"\"{path}\" does not exist or is not a file";
            }
            var file = File.ResolveLinkTarget(full, returnFinalTarget: true)?.FullName ?? full;
            var mode = File.GetUnixFileMode(file);
            if (rule == FileRule.OwnerOnly && (mode & OthersAccess) != 0)
            {
                return $"\"{file}\" has mode {Octal(mode)}, but only its owner may access it; run: chmod 600 {file}";
            }
            if ((mode & OthersWrite) != 0)
            {
                return $"\"{file}\" has mode {Octal(mode)}, but only its owner may write it; run: chmod go-w {file}";
            }
            return DirectoryProblem(Path.GetDirectoryName(file));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return $"\"{path}\" cannot be checked: {error.Message}";
        }
    }

    private static string? DirectoryProblem(string? directory)
    {
        for (; !string.IsNullOrEmpty(directory); directory = Path.GetDirectoryName(directory))
        {
            var mode = File.GetUnixFileMode(directory);
            if (mode.HasFlag(UnixFileMode.OtherWrite) && !mode.HasFlag(UnixFileMode.StickyBit))
            {
                return $"directory \"{directory}\" has mode {Octal(mode)}, so everyone may replace the file; run: chmod o-w {directory}";
            }
        }
        return null;
    }

    /// <summary>A mode as chmod(1) takes it, four digits.</summary>
    public static string Octal(UnixFileMode mode) => Convert.ToString((int)mode, 8).PadLeft(4, '0');
}

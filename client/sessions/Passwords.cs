using System.Text;
using Lightway.Hosting;
using Lightway.Options;
using Microsoft.Extensions.Logging;

namespace Lightway.Client.Sessions;

/// <summary>The password of a server's user: from the options, from a file, or from the person at the terminal.</summary>
internal static class Passwords
{
    private const int MaxFile = 4096; // bytes; a longer one is no password

    /// <exception cref="ConfigurationException">There is none, or its file can't be used.</exception>
    /// <exception cref="OperationCanceledException">The person pressed Ctrl-C.</exception>
    public static string Of(ClientOptions options)
    {
        if (options.Password.Length > 0 || options.Token is not null)
        {
            return options.Password;
        }
        if (options.PasswordFile is { } file)
        {
            return Read(file);
        }
        return Console.IsInputRedirected
            ? throw new ConfigurationException(
                $"password: missing; set it in {options.ConfigFile}, or name its file with password_file; a client on a terminal asks for it"
            )
            : Ask($"Password of {options.User} at {options.ServerHost}: ");
    }

    /// <summary>As <see cref="Of"/>, but asks nobody: warns that a start would.</summary>
    /// <exception cref="ConfigurationException">Its file can't be used.</exception>
    public static void Check(ClientOptions options, ILogger log)
    {
        if (options.Password.Length > 0 || options.Token is not null)
        {
            return;
        }
        if (options.PasswordFile is { } file)
        {
            _ = Read(file);
            return;
        }
        ProgramLog.Warning(
            log,
            $"password: missing for {options.User} at {options.ServerHost}: a start asks for it on the terminal, and fails without one; see password_file"
        );
    }

    /// <summary>The file's text without the line break at its end.</summary>
    internal static string Read(string file)
    {
        FileChecks.Require("password_file", file, FileRule.OwnerOnly);
        try
        {
            if (new FileInfo(file).Length > MaxFile)
            {
                throw new ConfigurationException($"password_file: \"{file}\" has more than {MaxFile} bytes");
            }
            var text = File.ReadAllText(file, Encoding.UTF8).TrimEnd('\n', '\r');
            return text.Length > 0
                ? text
                : throw new ConfigurationException($"password_file: \"{file}\" is empty; write the password into it");
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigurationException($"password_file: cannot read \"{file}\": {error.Message}");
        }
    }

    /// <summary>Asks on the terminal, and shows nothing of the answer.</summary>
    private static string Ask(string prompt)
    {
        var answer = new StringBuilder();
        Console.TreatControlCAsInput = true; // the signal would leave the question open
        try
        {
            Console.Error.Write(prompt);
            while (true)
            {
                var key = Console.ReadKey(intercept: true);
                switch (key)
                {
                    case { Key: ConsoleKey.Enter } when answer.Length > 0:
                        return answer.ToString();
                    case { Key: ConsoleKey.C, Modifiers: ConsoleModifiers.Control }:
                        throw new OperationCanceledException();
                    case { Key: ConsoleKey.Backspace }:
                        answer.Length = Math.Max(0, answer.Length - 1);
                        break;
                    case { KeyChar: >= ' ' }:
                        answer.Append(key.KeyChar);
                        break;
                }
            }
        }
        finally
        {
            Console.Error.WriteLine();
            Console.TreatControlCAsInput = false;
        }
    }
}

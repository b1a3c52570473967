namespace Lightway.Server.Auth;

/// <summary>What a check of a login came to; the default value lets nobody in.</summary>
public enum AuthVerdict
{
    /// <summary>The check itself went wrong.</summary>
    Failed = 0,

    Refused,

    Allowed,
}

/// <summary>What has decided about a login.</summary>
public enum LoginMeans
{
    PasswordFile = 0,
    Token,
    Command,

    /// <summary>The command was not asked: its lines can't hold this user or password.</summary>
    Unsendable,
}

/// <summary>The answer of a check.</summary>
/// <param name="Error">Why it failed or was refused, for the log; null: nothing is to be said.</param>
/// <param name="Means">What has decided.</param>
public readonly record struct LoginAnswer(
    AuthVerdict Verdict,
    string? Error,
    LoginMeans Means = LoginMeans.PasswordFile
)
{
    /// <summary>When a login expires that never does.</summary>
    public const long Never = long.MaxValue;

    /// <summary>Whose token it is; null: the user that the client has named.</summary>
    public string? User { get; init; }

    private readonly long _untilNever; // 0 in the default value of this struct

    /// <summary>When the login expires, in seconds since 1970; <see cref="Never"/> for a password.</summary>
    public long ExpiresAt
    {
        get => Never - _untilNever;
        init => _untilNever = Never - value;
    }
}

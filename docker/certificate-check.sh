# For preflight.sh, renew-certificate.sh and deploy-stack.sh: what is wrong with a certificate and its key.

certificate_problem() { # CERTIFICATE KEY: prints one sentence, or nothing
    local public of_key
    if ! command -v openssl >/dev/null; then
        echo "openssl is missing, which compares the certificate with its key"
    elif ! public=$(openssl x509 -in "$1" -noout -pubkey 2>/dev/null); then
        echo "$1 is no certificate in PEM"
    elif ! of_key=$(openssl pkey -in "$2" -pubout -passin pass: 2>/dev/null); then
        echo "$2 is no private key in PEM without a password"
    elif [ "$public" != "$of_key" ]; then
        echo "$1 and $2 do not match: the certificate is of another key"
    elif ! openssl x509 -in "$1" -noout -checkend 0 >/dev/null; then
        echo "$1 has expired"
    fi
}

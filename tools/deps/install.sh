# shellcheck shell=bash
# Sourced by ./quickstart and ./check: installs what the lists beside it name, and only what is missing.

# have_package NAME VERSION: installed, and at least that version (a Debian epoch does not count).
have_package() {
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$1" 2>/dev/null) || return 1
  [[ $installed == "installed "* ]] || return 1
  installed=${installed#installed }
  dpkg --compare-versions "${installed#*:}" ge "$2"
}

# as_root COMMAND...: directly as root, else through sudo without asking for a password.
as_root() {
  if [[ $(id -u) -eq 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -n "$@"
  else
    echo "this step needs root: run it once as root, or install sudo: $*" >&2
    return 1
  fi
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 \
    -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# missing_packages LIST...: "name version" of those that are not there yet, one a line.
missing_packages() {
  local name version
  while read -r name version; do
    have_package "$name" "$version" || echo "$name $version"
  done < <(grep -hv '^#' "$@")
}

# install_packages LIST...: quick when everything is there.
install_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  if [[ ${#missing[@]} -eq 0 ]]; then
    echo "all Debian packages are there"
    return 0
  fi
  if ! command -v apt-get >/dev/null; then
    echo "expected Debian's apt-get; install these by hand and start again: ${missing[*]}" >&2
    return 1
  fi
  apt_get update || return 1
  apt_get install -y --no-install-recommends "${missing[@]%% *}" || return 1
  mapfile -t missing < <(missing_packages "$@")
  if [[ ${#missing[@]} -gt 0 ]]; then
    echo "expected at least these versions, this system's packages are older: ${missing[*]}" >&2
    return 1
  fi
}

# make_venv FOLDER REQUIREMENTS: once, and again only when the requirements or the Python change.
make_venv() {
  local python=/usr/bin/python3 stamp
  [[ -x $python ]] || python=python3
  stamp="$(sha256sum <"$2") $("$python" --version)"
  if [[ -x $1/bin/python && -f $1/stamp && $(<"$1/stamp") == "$stamp" ]]; then
    echo "$1 is up to date"
    return 0
  fi
  rm -rf "$1"
  "$python" -m venv "$1" || return 1
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$2" || return 1
  echo "$stamp" >"$1/stamp"
  echo "made $1"
}

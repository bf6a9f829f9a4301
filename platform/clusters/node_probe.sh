# Describe this machine as lines `key=value`. POSIX sh; read by platform/clusters/probe.py through a single ssh
# connection. Starts and changes nothing. The caller defines: head, targets (host:port ...), ports.
say() { printf '%s=%s\n' "$1" "$2"; }
say time "$(date +%s.%N)"
say user "$(id -un)"
say cpus "$(nproc 2>/dev/null)"
say memory_kb "$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)"
say disk_kb "$(df -Pk "$HOME" | awk 'NR == 2 {print $4}')"
say tmp_kb "$(df -Pk /tmp | awk 'NR == 2 {print $4}')"
[ -w "$HOME" ] && say home_writable yes
[ -f "$HOME/resnet-sweep-platform/.venv/installed.lock" ] && say installed yes
for python in "$HOME/resnet-sweep-platform/.venv/bin/python" python3 python3.14 python3.13 python3.12 python3.11; do
    version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
    say python "$version"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && break
done
for tool in make rsync bash uv; do command -v "$tool" >/dev/null && say "$tool" yes; done
[ -x "$HOME/resnet-sweep-platform/.tools/uv/bin/uv" ] && say uv yes
"$python" -c 'import ensurepip' 2>/dev/null && say venv yes
"$python" -m pip --version >/dev/null 2>&1 && say venv yes
for compiler in c++ g++ clang++; do
    command -v "$compiler" >/dev/null && say compiler "$("$compiler" --version | head -n 1)" && break
done
say addresses "$(hostname -I 2>/dev/null || ip -o addr show 2>/dev/null | awk '{sub("/.*", "", $4); print $4}' | tr '\n' ' ')"

for device in /sys/bus/pci/devices/*; do
    read -r vendor 2>/dev/null < "$device/vendor" && read -r class 2>/dev/null < "$device/class" || continue
    case "$vendor $class" in 0x10de\ 0x03*) say nvidia_device yes ;; esac
done
if command -v nvidia-smi >/dev/null; then
    timeout 8 nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1 </dev/null |
        while read -r line; do say gpu "$line"; done
fi

# Listening TCP ports (state 0A), from the kernel: `ss` is not installed everywhere.
for port in $ports; do
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port=":$(printf %04X "$port")" '$4 == "0A" && substr($2, length($2) - 4) == port {found = 1}
            END {exit !found}' && say listening "$port"
done
me=$(id -u)
for file in $(grep -la -e gcs_server -e platform.sweep /proc/[0-9]*/cmdline 2>/dev/null); do
    [ "$(stat -c %u "$file" 2>/dev/null)" = "$me" ] || continue
    words=$(tr '\0' ' ' 2>/dev/null < "$file")
    case "$words" in
    *gcs_server\ *--gcs_server_port=*) words=${words##*--gcs_server_port=}; say ray "${words%% *}" ;;
    *python*\ -m\ platform.sweep\ *) file=${file%/cmdline}; say sweep "${file#/proc/}" ;;
    esac
done

[ -z "$head" ] || say head_resolves_to "$(getent ahosts "$head" | awk '{print $1; exit}')"
for target in $targets; do
    (
        answer=$(timeout 3 bash -c "exec 3<>/dev/tcp/${target%:*}/${target##*:}" 2>&1 </dev/null)
        case "$?:$answer" in
        0:* | *refused*) ;;
        *) say cannot_reach "$target" ;;
        esac
    ) &
done
wait
say end yes

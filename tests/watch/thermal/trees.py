"""Made-up trees of what the kernel shows of heat and power."""

from __future__ import annotations

ZONE = "sys/class/thermal/thermal_zone0"
FLAGS = "sys/devices/platform/soc/soc:firmware/get_throttled"
FREQUENCY = "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq"
VOLTAGE = "sys/class/hwmon/hwmon1"


def zone(number: int, kind: str, millidegrees: object, *trips: tuple[str, int]) -> dict[str, str]:
    at = f"sys/class/thermal/thermal_zone{number}"
    tree = {f"{at}/type": f"{kind}\n", f"{at}/temp": f"{millidegrees}\n"}
    for index, (name, temperature) in enumerate(trips):
        tree |= {
            f"{at}/trip_point_{index}_type": f"{name}\n",
            f"{at}/trip_point_{index}_temp": f"{temperature}\n",
        }
    return tree


def model(name: str) -> dict[str, str]:
    return {"proc/device-tree/model": f"{name}\0"}


PI4 = (
    model("Raspberry Pi 4 Model B Rev 1.4")
    | zone(0, "cpu-thermal", 52583, ("critical", 110000))
    | {
        FLAGS: "50005\n",
        FREQUENCY: "1500000\n",
        f"{VOLTAGE}/name": "rpi_volt\n",
        f"{VOLTAGE}/in0_lcrit_alarm": "1\n",
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\n",
    }
)
PI5 = (
    model("Raspberry Pi 5 Model B Rev 1.0")
    | zone(0, "cpu-thermal", 61700, ("critical", 110000), ("active", 50000), ("active", 60000))
    | {
        "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0\n",
        FREQUENCY: "2400000\n",
        "sys/class/hwmon/hwmon2/name": "pwmfan\n",
        "sys/class/hwmon/hwmon2/fan1_input": "3200\n",
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd aes asimdhp cpuid asimddp\n",
    }
)
PI3_PLUS = model("Raspberry Pi 3 Model B Plus Rev 1.3") | zone(0, "cpu-thermal", 48312)
